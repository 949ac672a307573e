"""`python -m example_app.demo`, or `make demo`.

Migrates a database of its own (or the one in DATABASE_URL), starts the real server, plays the scenes over HTTP, shows
what became of each, and checks it all in the database. The exit code is 1 when anything is not as promised.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from example_app.server import WORKERS, Server, SetupError, check_dependencies, migrate_database

if TYPE_CHECKING:
    from flask import Flask

    from example_app.demo.scenes import Scene
    from example_app.demo.stage import Result


def main() -> None:
    signal.signal(signal.SIGTERM, _leave_in_order)
    try:
        check_dependencies("gunicorn", "rich")
        with tempfile.TemporaryDirectory(prefix="contenthub-demo-") as folder:
            broken = play(Path(folder))
    except SetupError as error:
        sys.exit(f"The demo cannot start: {error}")
    except SQLAlchemyError as error:
        sys.exit(f"The demo cannot use the database: {getattr(error, 'orig', None) or error}")
    except (OSError, HTTPException) as error:
        sys.exit(f"The server did not answer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if broken else 0)


def play(folder: Path) -> list[str]:
    """Everything from an empty database to the summary; returns what was not as promised."""
    from rich.console import Console

    from example_app.app import create_app
    from example_app.demo.cast import engage
    from example_app.demo.checks import checks
    from example_app.demo.scenes import scenes
    from example_app.demo.stage import WIDTH, Stage, conclude
    from flask_contenthub_webhook import generate_secret

    began = time.monotonic()
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    secret = generate_secret()
    isolate(folder, secret)
    app = create_app()
    database = make_url(app.config["SQLALCHEMY_DATABASE_URI"]).render_as_string(hide_password=True)
    console.print(f"[bold]ContentHub[/], set up on {database} by its own migrations:", soft_wrap=True)
    migrate_database(app)
    stage = Stage(console)
    with Server(folder / "server.log") as server:
        console.print(f"Served by gunicorn (process {server.pid}, {WORKERS} workers) on {server.url}\n")
        with app.app_context():
            cast = engage(server.url)
        with stage.open():
            for act, played in scenes(cast, secret, server.url):
                stage.announce(act)
                for scene in played:
                    stage.show(perform(scene, server.url, app))
    with app.app_context():
        answers = [answer for result in stage.results for answer in result.answers]
        kept = list(checks(list(cast.values()), answers))
    return conclude(console, stage.results, kept, time.monotonic() - began)


def isolate(folder: Path, secret: str) -> None:
    """Let nothing but the demo configure the application: neither this process nor the server that inherits from it."""
    for name in [name for name in os.environ if name.startswith(("WEBHOOK_", "CREATOR_", "FLASK_", "GUNICORN_"))]:
        del os.environ[name]
    os.environ["WEBHOOK_SECRET_KEY"] = secret
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'contenthub.db'}"


def perform(scene: Scene, url: str, app: Flask) -> Result:
    """Send what the scene says, and look at what became of it."""
    from example_app.demo.captures import send
    from example_app.demo.cast import contents_of, states_of
    from example_app.demo.stage import Result

    with ThreadPoolExecutor(len(scene.requests) if scene.at_once else 1) as senders:
        answers = list(senders.map(lambda request: send(request, url), scene.requests))
    if scene.at_once:
        answers.sort(key=lambda answer: answer.words != ("processed",))  # whoever won is shown first
    with app.app_context():
        return Result(scene, tuple(answers), tuple(states_of(scene.roles)), tuple(contents_of(scene.roles)))


def _leave_in_order(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    main()
