"""`python -m example_app.demo [--verbose] [callbacks] [loop]`, or `make demo`.

Sets up a temporary database (or the one in DATABASE_URL) and runs two parts against the real server. `callbacks` sends
real requests over HTTP. `loop` submits tasks to a simulated creator whose callbacks are lost, doubled, late,
contradictory or forged. Everything is checked in the database; the exit code is 1 when a check fails. `--verbose` shows
every request, and what became of it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NoReturn

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from example_app.database import database_uri
from example_app.server import SetupError, check_dependencies

TITLES = {"callbacks": "Part 1: what callbacks do", "loop": "Part 2: the whole loop"}
VERBOSE = "--verbose"
WIDTH, WIDE = 80, 100
"""Columns of the output where it does not go to a terminal: of the answer, and with the scenes."""
KEPT = "demo.db"
"""The copy of the temporary database, in the instance folder, for `make serve`."""


def main() -> None:
    signal.signal(signal.SIGTERM, _exit_in_order)
    is_verbose = VERBOSE in sys.argv
    wanted = [argument for argument in sys.argv[1:] if argument != VERBOSE] or list(TITLES)
    if unknown := [name for name in wanted if name not in TITLES]:
        usage = f"python -m example_app.demo [{VERBOSE}] [{'] ['.join(TITLES)}]"
        sys.exit(f"There is no part {unknown[0]!r}. Usage: {usage}")
    try:
        check_dependencies("gunicorn", "rich")
        with tempfile.TemporaryDirectory(prefix="contenthub-demo-") as folder:
            failures = run([name for name in TITLES if name in wanted], Path(folder), is_verbose=is_verbose)
    except SetupError as error:
        sys.exit(f"The demo cannot start: {error}")
    except SQLAlchemyError as error:
        sys.exit(f"The demo cannot use the database: {getattr(error, 'orig', None) or error}")
    except (OSError, HTTPException) as error:
        sys.exit(f"The server did not answer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failures else 0)


def run(names: list[str], folder: Path, *, is_verbose: bool) -> list[str]:
    """Run the parts until one fails, and return what was not as expected."""
    from rich.console import Console

    from example_app.demo.callbacks import run_callbacks
    from example_app.demo.loop import run_loop
    from example_app.demo.output import print_answer

    started = time.monotonic()
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE if is_verbose else WIDTH
    details = console if is_verbose else Console(quiet=True)
    isolate(folder)
    database = make_url(database_uri(os.environ))
    details.print(f"ContentHub, set up on {database.render_as_string(hide_password=True)}:", soft_wrap=True)
    parts = []
    for name in names:
        details.print(f"\n[bold reverse] {TITLES[name]} [/]\n")
        parts.append({"callbacks": run_callbacks, "loop": run_loop}[name](console, details, folder))
        if parts[-1].failures:
            break
    kept = keep(database, folder) if not any(part.failures for part in parts) else ""
    print_answer(console, parts, time.monotonic() - started, kept)
    return [failure for part in parts for failure in part.failures]


def keep(database: URL, folder: Path) -> str:
    """Keep the history of the demo, and return the DATABASE_URL for `make serve`."""
    if database.database is None or Path(database.database).parent != folder:
        return database.render_as_string(hide_password=True)
    instance = Path(__file__).resolve().parents[2] / "instance"
    instance.mkdir(exist_ok=True)
    with NamedTemporaryFile(dir=instance, prefix=f"{KEPT}.", delete=False) as draft:
        with closing(sqlite3.connect(database.database)) as source, closing(sqlite3.connect(draft.name)) as copy:
            source.backup(copy)
        Path(draft.name).replace(instance / KEPT)
    return f"sqlite:///{KEPT}"


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
