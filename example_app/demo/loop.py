"""Part 2 of the demo: forty tasks for a creator that misbehaves, every one of them settled in the end."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from example_app.app import create_app
from example_app.demo.expectations import OPEN, Outcome, Part, load_outcomes, loop_checks, source_of
from example_app.demo.output import Progress, Table, contents_in_words, print_checks, set_up
from example_app.extensions import db
from example_app.models import Account, Delivery, GenerationTask, now
from example_app.server import WORKERS, Server
from example_app.tasks import account_named, submit_task
from flask_contenthub_webhook.testing import Contradiction, CreatorSimulator, Faults, Forgery, TaskFaults

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
"""The environment of the application."""
# All times are in seconds.
WORK_TIME = (0.3, 1.5)
LATE_BY = 4.0  # longer than the poller waits
DOWN_FOR = 1.5
LOST_TASK_TIMEOUT = 7  # for a task that nobody will ever finish
LONGEST_STANDSTILL = 40.0  # while no task changes its state; a busy machine takes longer than that for all of them
LONGEST_LULL = 8.0  # the wait before the crash until nothing else is going on
LOOK_INTERVAL = 0.2
LOG_LINES = 20
COLUMNS = {"What goes wrong": 22, "What reached us": 35, "Settled by": 10, "Task": 18, "Contents": 11}


class Case(NamedTuple):
    """Tasks with which the same thing goes wrong; there is one task for each of the faults.

    Args:
        wrong: what goes wrong, in words; also the topic of the tasks.
        why: the reason why it ends well all the same, in words.
        faults: the faults of the tasks' first attempts.
        options: further arguments of `webhook.submit`.
    """

    wrong: str
    why: str
    faults: Sequence[TaskFaults]
    options: Mapping[str, Any] = MappingProxyType({})


BEFORE_CRASH = (
    Case(
        "fails at the first attempt",
        "After its backoff the task is submitted again, as a new attempt with a new id and a new URL.",
        [TaskFaults(fail="Request failed with status code 400")] * 2,
    ),
    Case(
        "nothing",
        "The callback and the answer to the submission bring the same result; the second one is a duplicate.",
        [TaskFaults()] * 6,
    ),
    Case(
        "its callback is never sent",
        "After two seconds of silence we poll. A poll brings no quality score, so a person reviews the content.",
        [TaskFaults(lose=True)] * 5,
    ),
    Case(
        "its callback comes twice",
        "One compare-and-set on the task's row decides; the second copy changes nothing.",
        [TaskFaults(duplicate=True)] * 3,
    ),
    Case(
        "a forged callback comes first",
        "Without this task's token it is refused; the real callback finds the task untouched.",
        [TaskFaults(forge=forgery) for forgery in Forgery],
    ),
    Case(
        "fails at every attempt",
        "It was given one more attempt, and not a third.",
        [TaskFaults()],
        {"imageSize": "none", "max_retries": 1},
    ),
    Case(
        "is refused: 400",
        "The creator will never accept this task as it is, so it is not submitted again. Its reasons are kept.",
        [TaskFaults(refuse=True)],
    ),
)
INTERRUPTED = Case(
    "dies with the creator",
    "The creator keeps saying “running”. At the deadline it was polled once more; then we gave up.",
    [TaskFaults()] * 3,
    {"timeout": LOST_TASK_TIMEOUT},
)
WHILE_DOWN = Case(
    "finds the creator down",
    "Nothing was delivered, so it stays in the outbox; a later sweep submits it, as the same attempt.",
    [TaskFaults()] * 3,
)
AFTER_CRASH = (
    Case(
        "its callback is late",
        "We did not wait: the poll was quicker, and the callback that came afterwards is a duplicate.",
        [TaskFaults(delay=True)] * 3,
    ),
    Case(
        "completed, then failed",
        "A completed task stays completed.",
        [TaskFaults(contradict=Contradiction.FAILED_AFTER_COMPLETED)],
    ),
    Case(
        "completed twice, differently",
        "The first result counts: its effects are there, and may have been published.",
        [TaskFaults(contradict=Contradiction.TWO_COMPLETED)],
    ),
    Case(
        "failed, then completed",
        "No attempt was left, so it had failed. A late result still counts, but a person reviews it first.",
        [TaskFaults(contradict=Contradiction.FAILED_THEN_COMPLETED)],
        {"max_retries": 0},
    ),
    Case("nothing, after the crash", "The outbox held it until the creator was back.", [TaskFaults()] * 7),
)
CASES = (*BEFORE_CRASH, INTERRUPTED, WHILE_DOWN, *AFTER_CRASH)


@dataclass(frozen=True, kw_only=True)
class PlannedFaults(Faults):
    """The faults by the id of an attempt; an attempt without a plan has none."""

    plan: dict[str, TaskFaults] = field(default_factory=dict)

    def of(self, seed: int, task_id: str) -> TaskFaults:  # noqa: ARG002 - nothing is drawn
        return self.plan.get(task_id, TaskFaults())


STORY = "Forty tasks for a creator whose callbacks are lost, doubled, late, forged or contradictory, and which crashes."


def run_loop(console: Console, details: Console, folder: Path) -> Part:
    """Settle all tasks.

    Args:
        console: where to print that it begins, and to draw its progress.
        details: where to print each case.
        folder: for the logs.
    """
    faults = PlannedFaults(delay_by=LATE_BY, contradict_after=1.5)
    with CreatorSimulator(
        faults=faults, work_time=WORK_TIME, time_scale=0.1, callback_timeout=10, keep_bodies=False
    ) as creator:
        os.environ.update(SETTINGS, CREATOR_API_BASE_URL=creator.base_url)
        logging.getLogger("flask_contenthub_webhook").addHandler(logging.FileHandler(folder / "demo.log"))
        app = create_app()
        set_up(app, details)
        with app.app_context():
            open_tasks = db.select(GenerationTask).where(GenerationTask.status.in_(OPEN))
            if others := len(db.session.scalars(open_tasks).all()):
                return Part(
                    STORY,
                    f"Skipped: this database has {others} open task(s) that are not the demo's, and the scheduler "
                    "would hand them to the simulated creator. Choose another DATABASE_URL.",
                )
            account = account_named(f"Loop of {now():%Y-%m-%d %H:%M:%S.%f}", min_quality=8)
            db.session.commit()
            with Server(folder / "loop.log") as server:
                console.print(f"Part 2 is served by gunicorn (process {server.pid}, {WORKERS} workers).")
                details.print(f"Each worker has the scheduler; a simulated creator is on {creator.base_url}\n")
                progress = Progress(console, details, sum(len(case.faults) for case in CASES))
                with progress.open():
                    outcomes = _Loop(creator, faults.plan, server.url, progress, account).run()
                    seconds = progress.seconds
                log = server.log
    with app.app_context():
        details.print()
        _print_cases(details, outcomes)
        checks = list(loop_checks(outcomes, creator))
        failures = print_checks(details, checks)
    settled = sum(outcome.is_settled for outcome in outcomes)
    outcome = f"{settled} of {len(outcomes)} tasks were settled, in {seconds:.1f} s."
    details.print(f"\n{outcome}")
    if failures:
        console.print("\nThe end of the server's log:", *log.splitlines()[-LOG_LINES:], sep="\n", markup=False)
    return Part(STORY, outcome, checks, failures)


@dataclass
class _Loop:
    """The course of events, with a running creator that takes its faults from `plan`."""

    creator: CreatorSimulator
    plan: dict[str, TaskFaults]
    url: str
    progress: Progress
    account: Account
    task_ids: list[str] = field(default_factory=list)
    outcomes: Sequence[Outcome] = ()
    deadline: float = field(default_factory=lambda: time.monotonic() + LONGEST_STANDSTILL)
    looked_at: float = 0.0

    def run(self) -> Sequence[Outcome]:
        """Run until every task is settled and the creator has nothing more to say."""
        creator, progress = self.creator, self.progress
        self._submit(BEFORE_CRASH)
        self._wait(lambda: creator.idle and not self._is_pending(), at_most=LONGEST_LULL)
        self._submit([INTERRUPTED], pause=0)
        self._wait(lambda: self._interrupted() > 0)
        self._wait(lambda: self._interrupted() == len(INTERRUPTED.faults), at_most=min(WORK_TIME) / 2)
        creator.crash(restart_after=DOWN_FOR)
        progress.print_news("The creator crashes and loses its work in progress and the callbacks in its memory.")
        self._submit([WHILE_DOWN])
        self._wait(lambda: creator.up)
        progress.print_news("The creator is back, with what is in its database.")
        self._submit(AFTER_CRASH)
        progress.print_news("Everything is submitted; now callbacks, polls and the outbox settle it.")
        self._wait(lambda: creator.idle and all(outcome.is_settled for outcome in self.outcomes))
        self._look()
        return self.outcomes

    def _submit(self, cases: Iterable[Case], pause: float = 0.1) -> None:
        for case, faults in ((it, faults) for it in cases for faults in it.faults):
            task = submit_task(
                self.account, case.wrong, auto_approve=True, base_url=self.url, commit=False, **case.options
            )
            self.plan[task.creator_task_id or ""] = faults  # before the creator can hear of the task
            self.task_ids.append(task.task_id)
            db.session.commit()
            time.sleep(pause)
            self._look_now_and_then()

    def _is_pending(self) -> bool:
        return len(self.outcomes) < len(self.task_ids) or any(it.task.status == "pending" for it in self.outcomes)

    def _interrupted(self) -> int:
        """The number of tasks that are to die with the creator and have reached it."""
        return sum(task.topic == INTERRUPTED.wrong for task in self.creator.tasks.values())

    def _wait(self, condition: Callable[[], bool], at_most: float = math.inf) -> None:
        """Wait until the condition holds, the time is up or nothing changes any more; a check fails in the end."""
        end = time.monotonic() + at_most
        while not condition() and time.monotonic() < min(end, self.deadline):
            time.sleep(0.02)
            self._look_now_and_then()

    def _look_now_and_then(self) -> None:
        if time.monotonic() - self.looked_at > LOOK_INTERVAL:
            self._look()

    def _look(self) -> None:
        before = [outcome.task.status for outcome in self.outcomes]
        self.outcomes = load_outcomes(self.task_ids)
        self.progress.show(self.outcomes)
        self.looked_at = time.monotonic()
        if [outcome.task.status for outcome in self.outcomes] != before:
            self.deadline = self.looked_at + LONGEST_STANDSTILL


def _print_cases(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print a typical task of each case: what reached us, what settled it, and why it came out right."""
    table = Table(console, COLUMNS)
    for case in CASES:
        of_case = [outcome for outcome in outcomes if outcome.task.topic == case.wrong]
        [(usual, _)] = Counter(outcome.settled_by for outcome in of_case).most_common(1)
        shown = next(outcome for outcome in of_case if outcome.settled_by == usual)
        # That the creator took the job is no news.
        deliveries = [_in_words(delivery) for delivery in shown.deliveries if delivery.event != "submitted"]
        cells = (
            case.wrong,
            "\n".join(deliveries) or "nothing",
            shown.settled_by or "nothing",
            str(shown),
            contents_in_words([shown]),
        )
        table.print_row(cells, Text(case.why, "dim"))
    console.print()


def _in_words(delivery: Delivery) -> str:
    if delivery.event == "timed_out":
        return "deadline: given up"
    if delivery.verdict == "rejected":
        return f"refused: {delivery.error}"
    return f"{source_of(delivery)} {delivery.event}: {delivery.verdict}{', late' if delivery.late else ''}"
