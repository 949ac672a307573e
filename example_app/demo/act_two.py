"""Act two, the whole loop: tasks are submitted to a creator that goes wrong, and every one is settled all the same."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from example_app.app import create_app
from example_app.demo.board import Board
from example_app.demo.creator import AWAY_FOR, WORK_TIME, new_creator
from example_app.demo.endings import show_checks
from example_app.demo.fates import Fate, fates_of
from example_app.demo.orders import AFTER, AWAY, BEFORE, INTERRUPTED, PARTS, Order, Part, hire, open_tasks, submit
from example_app.demo.truth import loop_checks
from example_app.demo.verdicts import show_verdicts
from example_app.models import Account, now
from example_app.server import WORKERS, Server, migrate_database
from flask_contenthub_webhook.testing import CreatorSimulator, TaskFaults

SETTINGS = {
    "WEBHOOK_SCHEDULER_ENABLED": "true",
    # What takes minutes in real life takes seconds here.
    "WEBHOOK_POLL_GRACE": "2",
    "WEBHOOK_POLL_INTERVAL": "1",
    "WEBHOOK_POLL_MAX_INTERVAL": "2",
    "WEBHOOK_RETRY_BACKOFF": "1",
    "WEBHOOK_TASK_TIMEOUT": "20",
    "CREATOR_API_TIMEOUT": "5",
    "CREATOR_SUBMIT_WAIT": "0.4",
}
"""How the application is configured, by its environment."""
BETWEEN_ORDERS = 0.1
PATIENCE = 40.0
"""Seconds after which the act is over, settled or not."""
LULL = 8.0
"""Seconds to wait at most for a quiet moment before the crash, so that it is clear what dies with the creator."""
A_LOOK_EVERY = 0.2
LINES_OF_THE_LOG = 20


def play_loop(console: Console, folder: Path) -> list[str]:
    """Play the act; returns what was not as promised."""
    script: dict[str, TaskFaults] = {}
    with new_creator(script) as creator:
        os.environ.update(SETTINGS, CREATOR_API_BASE_URL=creator.base_url)
        logging.getLogger("flask_contenthub_webhook").addHandler(logging.FileHandler(folder / "demo.log"))
        app = create_app()
        migrate_database(app)
        with app.app_context():
            if strangers := open_tasks():
                console.print(
                    f"[yellow]Not played:[/] {len(strangers)} open tasks in this database are not the demo's, and the "
                    "scheduler would hand them to the simulated creator. Choose another DATABASE_URL."
                )
                return []
            with Server(folder / "loop.log") as server:
                console.print(f"A simulated creator is on {creator.base_url}")
                console.print(
                    f"ContentHub is served again (process {server.pid}, {WORKERS} workers, each with the scheduler)\n"
                )
                total = sum(len(list(part.plans())) for part in PARTS)
                account = hire(f"Loop of {now():%Y-%m-%d %H:%M:%S.%f}")
                loop = _Loop(creator, script, account, server.url, Board(console, total))
                fates = loop.play()
                log = server.log
    with app.app_context():
        console.print()
        show_verdicts(console, fates)
        broken = show_checks(console, loop_checks(fates, creator))
    settled = sum(fate.is_settled for fate in fates)
    console.print(f"\n{settled} of {total} tasks were settled, in {loop.seconds:.1f} s.")
    if broken:
        console.print("\nThe end of the server's log:", *log.splitlines()[-LINES_OF_THE_LOG:], sep="\n", markup=False)
    return broken


class _Loop:
    """The course of the act.

    Args:
        creator: it runs already.
        script: what goes wrong with which attempt; it grows with each order.
        account: for whom.
        url: where the creator reaches us.
        board: where it is shown.
    """

    def __init__(
        self, creator: CreatorSimulator, script: dict[str, TaskFaults], account: Account, url: str, board: Board
    ) -> None:
        self._creator = creator
        self._script = script
        self._account = account
        self._url = url
        self._board = board
        self._orders: list[Order] = []
        self._fates: list[Fate] = []
        self._deadline = time.monotonic() + PATIENCE
        self._looked = 0.0
        self.seconds = 0.0

    def play(self) -> list[Fate]:
        """From the first order until everything is settled and the creator has nothing more to say."""
        creator, board = self._creator, self._board
        with board.open():
            for part in BEFORE:
                self._submit(part)
            self._wait(lambda: creator.idle and not self._is_pending(), at_most=LULL)
            self._submit(INTERRUPTED, pause=0)
            self._wait(lambda: self._interrupted() > 0)
            self._wait(lambda: self._interrupted() == INTERRUPTED.copies, at_most=min(WORK_TIME) / 2)
            creator.crash(restart_after=AWAY_FOR)
            board.tell("The creator crashes: gone are its work in progress and the callbacks in its memory.")
            self._submit(AWAY)
            self._wait(lambda: creator.up)
            board.tell("The creator is back, and remembers what is in its database.")
            for part in AFTER:
                self._submit(part)
            board.tell("Everything is ordered; now callbacks, poller and outbox settle it.")
            self._wait(lambda: creator.idle and all(fate.is_settled for fate in self._fates))
            self.seconds = board.seconds
            self._look()
        return self._fates

    def _submit(self, part: Part, pause: float = BETWEEN_ORDERS) -> None:
        for plan in part.plans():
            self._orders.append(submit(part, plan, self._account, self._url, self._script))
            time.sleep(pause)
            self._look_now_and_then()

    def _is_pending(self) -> bool:
        return len(self._fates) < len(self._orders) or any(fate.status == "pending" for fate in self._fates)

    def _interrupted(self) -> int:
        """How many of those that are to die with the creator it has already."""
        return sum(task.topic == INTERRUPTED.name for task in self._creator.tasks.values())

    def _wait(self, condition: Callable[[], bool], at_most: float = PATIENCE) -> None:
        """Until something is so, or patience is at its end; the checks will say what was not."""
        deadline = min(time.monotonic() + at_most, self._deadline)
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
            self._look_now_and_then()

    def _look_now_and_then(self) -> None:
        if time.monotonic() - self._looked > A_LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        self._fates = fates_of(self._orders)
        self._board.show(self._fates)
        self._looked = time.monotonic()
