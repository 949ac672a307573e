"""`python -m example_app.serve [PORT] [--with-creator]`, or `make serve`: migrate, print advice, serve until Ctrl-C.

With `--with-creator`, or `make serve CREATOR=simulator`, a simulated creator works on what is ordered.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy.exc import SQLAlchemyError

from flask_contenthub_webhook.errors import ConfigurationError

from . import create_app
from .advice import how_to_be_the_creator, how_to_watch_the_creator
from .server import Server, SetupError, check_dependencies, gunicorn_command, listen, migrate_database

DEFAULT_PORT = 8000
LOG_FORMAT = '%(t)s %(h)s "%(m)s %(U)s" %(s)s'
"""The access log without the query string, because the token in it is as good as a password."""
LOG_OPTIONS = ("--access-logfile", "-", "--access-logformat", LOG_FORMAT)
WITH_CREATOR = "--with-creator"
QUICK_SETTINGS = {
    "WEBHOOK_SCHEDULER_ENABLED": "true",
    "WEBHOOK_POLL_GRACE": "10",
    "WEBHOOK_POLL_INTERVAL": "3",
    "WEBHOOK_POLL_MAX_INTERVAL": "10",
    "WEBHOOK_RETRY_BACKOFF": "5",
    "WEBHOOK_TASK_TIMEOUT": "60",
}
"""Defaults beside a creator that takes seconds instead of minutes; the environment overrides them."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line and the environment."""

    port: int
    with_creator: bool


def main() -> None:
    try:
        check_dependencies("gunicorn")
        options = read_options(sys.argv[1:])
        if options.with_creator:
            serve_with_creator(options.port)
        else:
            serve(options.port)
    except (SetupError, ConfigurationError, SQLAlchemyError) as error:
        sys.exit(f"example_app: {getattr(error, 'orig', None) or error}")


def read_options(arguments: list[str]) -> Options:
    """Return the options; the port is an argument, else PORT in the environment, else 8000."""
    creator = os.environ.get("CREATOR", "")
    if creator not in {"", "simulator"}:
        raise SetupError(f"CREATOR is {creator!r}; the only one that comes with the example is CREATOR=simulator.")
    words = [argument for argument in arguments if argument != WITH_CREATOR]
    text = words[0] if words else os.environ.get("PORT", str(DEFAULT_PORT))
    try:
        return Options(int(text), WITH_CREATOR in arguments or bool(creator))
    except ValueError:
        usage = f"Usage: python -m example_app.serve [PORT] [{WITH_CREATOR}]"
        raise SetupError(f"{text!r} is not a port. {usage}") from None


def serve(port: int) -> None:
    """Replace this process with gunicorn."""
    listener = listen(port)
    app = create_app()
    migrate_database(app)
    print(how_to_be_the_creator(app, f"http://127.0.0.1:{listener.getsockname()[1]}"), flush=True)
    listener.set_inheritable(True)
    command = gunicorn_command(listener, *LOG_OPTIONS)
    os.execv(command[0], command)  # noqa: S606 - from here on this process is gunicorn


def serve_with_creator(port: int) -> None:
    """Run a creator in this process and gunicorn beside it; both end together."""
    from flask_contenthub_webhook.testing import CreatorSimulator, Faults

    faults = Faults(lose=0.2, delay=0.1, duplicate=0.2, contradict=0.1, forge=0.2, fail=0.2, delay_by=20)
    signal.signal(signal.SIGTERM, _exit_in_order)
    try:
        with CreatorSimulator(faults=faults, work_time=(2, 8), keep_bodies=False) as creator:
            os.environ.update({**QUICK_SETTINGS, **os.environ, "CREATOR_API_BASE_URL": creator.base_url})
            app = create_app()
            migrate_database(app)
            with Server(port=port, options=LOG_OPTIONS) as server:
                print(how_to_watch_the_creator(app, server.url, creator.base_url), flush=True)
                sys.exit(server.wait())
    except KeyboardInterrupt:
        sys.exit()


def _exit_in_order(_signal: int, _frame: object) -> NoReturn:
    sys.exit()


if __name__ == "__main__":
    main()
