"""A program that submits from a forked child, or from a thread that outlives the main one.

Usage: ``python -m tests.support.unusual_places fork|thread DATABASE_URL``.
"""

from __future__ import annotations

import os
import sys
import threading

from tests.support.host import make_host
from tests.support.submission import BASE, submit, with_own_creator


def main(place: str, database_url: str) -> None:
    host = with_own_creator(
        make_host(database_url, create_tables=False, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1)
    )

    def submit_and_wait(*, until_idle: bool) -> None:
        submit(host)
        if until_idle:
            idle = threading.Event()
            host.state.submit_threads.submit_or_run(idle.set)
            idle.wait(3)

    submit_and_wait(until_idle=True)
    if place == "fork":
        with host.app.app_context():
            host.db.engine.dispose()
        if os.fork() == 0:
            submit_and_wait(until_idle=True)
            print("returned", flush=True)  # noqa: T201 - the test reads it
            os._exit(0)
        os.wait()
        return

    def outlive() -> None:
        threading.main_thread().join()
        threading.Event().wait(0.3)  # the interpreter has said that it takes no more work
        submit_and_wait(until_idle=False)
        print("returned", flush=True)  # noqa: T201 - the test reads it

    threading.Thread(target=outlive).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
