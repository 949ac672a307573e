"""A process that hands one task over, and is killed when the service has answered, before anything is committed.

``python -m tests.integration.services.killed DATABASE_URL``: for every line on stdin (the name of a service, its
address, its secret, and the time) it forks, and the child dies in that way.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from typing import Any

from flask_contenthub_webhook.creators import Creators, Job, Report
from tests.support.host import make_host
from tests.support.services import SERVICES

CONFIG: dict[str, Any] = {"WEBHOOK_SUBMIT_THREADS": 0, "WEBHOOK_CALLBACK_BASE_URL": "http://127.0.0.1:9"}


def main(database_url: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            name, address, secret, now = line.split()
            hand_over(database_url, name, address, secret, datetime.fromisoformat(now))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1, flush=True)  # noqa: T201


def hand_over(database_url: str, name: str, address: str, secret: str, now: datetime) -> None:
    service = SERVICES[name]
    fake = service.fake()
    fake.base_url, fake.secret = address, secret
    creator: Any = service.make(fake)
    submit = creator.submit

    def die_with_the_answer(job: Job, *, wait: float) -> Report:
        submit(job, wait=wait)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    creator.submit = die_with_the_answer
    models = {"creator": Creators(**{name: creator})}
    host = make_host(database_url, models=lambda db: models, create_tables=False, **CONFIG)
    host.clock.now = now
    with host.app.app_context():
        host.webhook.submit_due(limit=1)


if __name__ == "__main__":
    main(sys.argv[1])
