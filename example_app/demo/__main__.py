"""`python -m example_app.demo [callbacks] [loop]`, or `make demo`.

Sets up a temporary database (or the one in DATABASE_URL) and runs two parts against the real server. `callbacks` sends
real requests over HTTP. `loop` submits tasks to a simulated creator whose callbacks are lost, doubled, late,
contradictory or forged. Everything is checked in the database; the exit code is 1 when a check fails.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from example_app.database import database_uri
from example_app.server import SetupError, check_dependencies

TITLES = {"callbacks": "Part 1: what callbacks do", "loop": "Part 2: the whole loop"}
WIDTH = 100
"""Columns of the output where it does not go to a terminal."""


def main() -> None:
    signal.signal(signal.SIGTERM, _exit_in_order)
    wanted = sys.argv[1:] or list(TITLES)
    if unknown := [name for name in wanted if name not in TITLES]:
        sys.exit(f"There is no part {unknown[0]!r}. Usage: python -m example_app.demo [{'] ['.join(TITLES)}]")
    try:
        check_dependencies("gunicorn", "rich")
        with tempfile.TemporaryDirectory(prefix="contenthub-demo-") as folder:
            failures = run([name for name in TITLES if name in wanted], Path(folder))
    except SetupError as error:
        sys.exit(f"The demo cannot start: {error}")
    except SQLAlchemyError as error:
        sys.exit(f"The demo cannot use the database: {getattr(error, 'orig', None) or error}")
    except (OSError, HTTPException) as error:
        sys.exit(f"The server did not answer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failures else 0)


def run(parts: list[str], folder: Path) -> list[str]:
    """Run the parts until one fails, and return what was not as expected."""
    from rich.console import Console

    from example_app.demo.callbacks import run_callbacks
    from example_app.demo.loop import run_loop
    from example_app.demo.output import print_conclusion

    started = time.monotonic()
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    isolate(folder)
    database = make_url(database_uri(os.environ)).render_as_string(hide_password=True)
    console.print(f"[bold]ContentHub[/], set up on {database} by its own migrations:", soft_wrap=True)
    failures: list[str] = []
    for name in parts:
        console.print(f"\n[bold reverse] {TITLES[name]} [/]\n")
        failures = {"callbacks": run_callbacks, "loop": run_loop}[name](console, folder)
        if failures:
            break
    print_conclusion(console, failures, time.monotonic() - started)
    return failures


def isolate(folder: Path) -> None:
    """Configure this process, and the server that inherits its environment, for the demo alone."""
    from flask_contenthub_webhook import generate_secret

    for name in [name for name in os.environ if name.startswith(("WEBHOOK_", "CREATOR_", "FLASK_", "GUNICORN_"))]:
        del os.environ[name]
    os.environ["WEBHOOK_SECRET_KEY"] = generate_secret()
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'contenthub.db'}"


def _exit_in_order(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    main()
