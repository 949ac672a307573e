"""`python -m example_app.demo [ACT ...]`, or `make demo`.

Migrates a database of its own (or the one in DATABASE_URL), and plays two acts at the real server. `callbacks`: real
requests over HTTP, and what became of each. `loop`: tasks that a simulated creator works on, while callbacks are lost,
doubled, late, contradictory or forged. Everything is checked in the database. The exit code is 1 when anything is not
as promised.
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

ACTS = {"callbacks": "Act one: what callbacks do", "loop": "Act two: the whole loop"}
WIDTH = 100
"""Columns where the output is no terminal."""


def main() -> None:
    signal.signal(signal.SIGTERM, _leave_in_order)
    acts = sys.argv[1:] or list(ACTS)
    if unknown := [act for act in acts if act not in ACTS]:
        sys.exit(f"There is no act {unknown[0]!r}. Usage: python -m example_app.demo [{'] ['.join(ACTS)}]")
    try:
        check_dependencies("gunicorn", "rich")
        with tempfile.TemporaryDirectory(prefix="contenthub-demo-") as folder:
            broken = play([act for act in ACTS if act in acts], Path(folder))
    except SetupError as error:
        sys.exit(f"The demo cannot start: {error}")
    except SQLAlchemyError as error:
        sys.exit(f"The demo cannot use the database: {getattr(error, 'orig', None) or error}")
    except (OSError, HTTPException) as error:
        sys.exit(f"The server did not answer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if broken else 0)


def play(acts: list[str], folder: Path) -> list[str]:
    """The acts, until one fails; returns what was not as promised."""
    from rich.console import Console

    from example_app.demo.act_one import play_callbacks
    from example_app.demo.act_two import play_loop
    from example_app.demo.endings import conclude
    from flask_contenthub_webhook import generate_secret

    began = time.monotonic()
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    isolate(folder, generate_secret())
    database = make_url(database_uri(os.environ)).render_as_string(hide_password=True)
    console.print(f"[bold]ContentHub[/], set up on {database} by its own migrations:", soft_wrap=True)
    broken: list[str] = []
    for act in acts:
        console.print(f"\n[bold reverse] {ACTS[act]} [/]\n")
        broken = {"callbacks": play_callbacks, "loop": play_loop}[act](console, folder)
        if broken:
            break
    conclude(console, broken, time.monotonic() - began)
    return broken


def isolate(folder: Path, secret: str) -> None:
    """Let nothing but the demo configure the application: neither this process nor the server that inherits from it."""
    for name in [name for name in os.environ if name.startswith(("WEBHOOK_", "CREATOR_", "FLASK_", "GUNICORN_"))]:
        del os.environ[name]
    os.environ["WEBHOOK_SECRET_KEY"] = secret
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'contenthub.db'}"


def _leave_in_order(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    main()
