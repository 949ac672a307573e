"""Act one, what callbacks do: real requests of the real sender, and forged ones, at a real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flask import Flask
from rich.console import Console

from example_app.app import create_app
from example_app.demo.captures import send
from example_app.demo.cast import contents_of, engage, states_of
from example_app.demo.checks import checks
from example_app.demo.endings import show_checks
from example_app.demo.orders import cancel
from example_app.demo.scenes import Scene, scenes
from example_app.demo.stage import Result, Stage
from example_app.extensions import webhook
from example_app.server import WORKERS, Server, migrate_database


def play_callbacks(console: Console, folder: Path) -> list[str]:
    """Play the act; returns what was not as promised."""
    app = create_app()
    migrate_database(app)
    stage = Stage(console)
    with Server(folder / "callbacks.log") as server:
        console.print(f"Served by gunicorn (process {server.pid}, {WORKERS} workers) on {server.url}\n")
        with app.app_context():
            cast = engage(server.url)
            secret = webhook.settings.secrets[0]
        with stage.open():
            for title, played in scenes(cast, secret, server.url):
                stage.announce(title)
                for scene in played:
                    stage.show(perform(scene, server.url, app))
    with app.app_context():
        answers = [answer for result in stage.results for answer in result.answers]
        broken = stage.problems + show_checks(console, checks(list(cast.values()), answers))
        cancel([role.task_id for role in cast.values()])
    as_promised = sum(not result.problems for result in stage.results)
    console.print(f"\n{as_promised} of {len(stage.results)} scenes went as promised.")
    return broken


def perform(scene: Scene, url: str, app: Flask) -> Result:
    """Send what the scene says, and look at what became of it."""
    with ThreadPoolExecutor(len(scene.requests) if scene.at_once else 1) as senders:
        answers = list(senders.map(lambda request: send(request, url), scene.requests))
    if scene.at_once:
        answers.sort(key=lambda answer: answer.words != ("processed",))  # whoever won is shown first
    with app.app_context():
        return Result(scene, tuple(answers), tuple(states_of(scene.roles)), tuple(contents_of(scene.roles)))
