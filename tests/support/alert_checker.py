"""A process that checks the alerts: for each time on stdin it moves its clock there, checks, and prints what it told.

DATABASE_URL=... python -m tests.support.alert_checker
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from typing import Any

from flask_contenthub_webhook.signals import alert_changed, failure_rate_exceeded
from tests.support.host import make_host


def main() -> None:
    """Check until stdin ends."""
    host = make_host(os.environ["DATABASE_URL"], create_tables=False)
    told: list[Any] = []
    host.connect(alert_changed, lambda app, *, alert, **extra: told.append([alert.name, alert.raised]))
    host.connect(
        failure_rate_exceeded,
        lambda app, *, rate, sample, cleared, **extra: told.append([round(rate, 3), sample, cleared]),
    )
    log = _Log()
    logging.getLogger("flask_contenthub_webhook.operations.alerts").addHandler(log)
    logging.getLogger("flask_contenthub_webhook.operations.alerts").setLevel(logging.INFO)
    for line in sys.stdin:
        told.clear()
        log.lines.clear()
        host.clock.now = datetime.fromisoformat(line.strip())
        with host.app.app_context():
            host.webhook.check_alerts()
        print(json.dumps({"told": told, "log": log.lines}), flush=True)  # noqa: T201 - for whoever started it
    host.close()


class _Log(logging.Handler):
    """Levels and messages of what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append([record.levelname, record.getMessage()])


if __name__ == "__main__":
    main()
