"""The machinery of the soak: a whole installation that is made to suffer, and the books that are balanced afterwards.

The creator runs inside the test process, so that its truth is at hand; the host runs as people run it, in processes of
its own: gunicorn with two workers, and two ``flask webhook scheduler``.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from flask_contenthub_webhook import default_models
from flask_contenthub_webhook.core.state_machine import OPEN_STATES
from flask_contenthub_webhook.testing import FORGED_CONTENT, CreatorSimulator, Faults
from tests.support.gunicorn import Gunicorn
from tests.support.processes import PROJECT_ROOT, Guard, clean_environment, wait_until
from tests.support.soak_host import FACTORY
from tests.support.web_database import HostDatabase
from tests.support.web_host import Content, db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from flask_contenthub_webhook.testing import TaskRecord

_TASKS, _DELIVERIES, _CONTENTS = (model.__table__ for model in (*default_models(db), Content))

GRACE = 4.0
"""Seconds without a sign of life before the poller asks."""
DELAY = 8.0
"""Seconds that a late callback is late: past the grace."""
RETRIES = 2
"""Attempts after the first one, but for every fifth task, which gets none."""
SUBMITTERS = 4

HOST = {
    "WEBHOOK_SECRET_KEY": "correct-horse-battery-staple-of-forty-bytes",
    "WEBHOOK_REQUIRE_SIGNATURE": "true",
    "WEBHOOK_SIGNATURE_SCHEMES": "url",
    "WEBHOOK_POLL_GRACE": str(GRACE),
    "WEBHOOK_POLL_INTERVAL": "1",
    "WEBHOOK_POLL_MAX_INTERVAL": "4",
    "WEBHOOK_RETRY_BACKOFF": "1,2,2",
    "WEBHOOK_MAX_RETRIES": str(RETRIES),
    "WEBHOOK_TASK_TIMEOUT": "900",
    "CREATOR_SUBMIT_WAIT": "0.1",
    "CREATOR_API_TIMEOUT": "2",
    "TEST_HOST_BUSY_TIMEOUT": "10",
}


def faults(tasks: int) -> Faults:
    """What goes wrong. Two in a hundred are forged, but some ten at least, so that there are some of each kind."""
    return Faults(
        lose=0.10,
        duplicate=0.10,
        delay=0.05,
        contradict=0.05,
        forge=max(0.02, 10 / tasks),
        reorder=0.02,
        fail=0.08,
        refuse=0.01,
        delay_by=DELAY,
        contradict_after=2.0,
    )


# --- the processes -------------------------------------------------------------------------------------------------


class Scheduler:
    """One ``flask webhook scheduler``, as a process."""

    def __init__(self, environment: dict[str, str], log_path: Path) -> None:
        self._environment = environment
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def start(self) -> Self:
        before = self.log.count("The scheduler runs")
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flask", "--app", FACTORY, "webhook", "scheduler"],
                cwd=PROJECT_ROOT,
                env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1", **self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._process, self._guard = process, Guard(process.pid, signal.SIGKILL)
        wait_until(
            lambda: self.log.count("The scheduler runs") > before,
            timeout=60,
            what="the scheduler did not start",
            log=lambda: self.log,
        )
        return self

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def end(self, sig: signal.Signals) -> int:
        """Send a signal, and give back the exit code."""
        process, guard = self._process, self._guard
        if process is None or guard is None:
            return 0
        process.send_signal(sig)
        try:
            return process.wait(30)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            guard.release()
            self._process = self._guard = None


@dataclass
class Installation:
    """The creator, the host and its two schedulers, running."""

    creator: CreatorSimulator
    gunicorn: Gunicorn
    schedulers: list[Scheduler]
    database: HostDatabase
    events: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def note(self, event: str) -> None:
        self.events.append(f"{time.monotonic() - self.began:6.1f} s  {event}")

    @property
    def logs(self) -> list[str]:
        return [self.gunicorn.log, *(scheduler.log for scheduler in self.schedulers)]

    def end_schedulers(self) -> list[int]:
        """End them in order, as an operator does; their exit codes."""
        return [scheduler.end(signal.SIGTERM) for scheduler in self.schedulers]

    def kill_worker(self) -> None:
        self.gunicorn.kill_worker()
        self.note("kill -9 of a gunicorn worker")

    def kill_creator(self) -> None:
        """With everything that it works on (its restart fails that) and its queue of callbacks."""
        self.creator.crash(restart_after=1.0)
        self.note("the creator dies")

    def kill_host(self, away: float = 1.0) -> None:
        """Kill gunicorn with all its workers and one scheduler, and start them again."""
        os.killpg(self.gunicorn.master_pid, signal.SIGKILL)
        self.schedulers[0].end(signal.SIGKILL)
        self.note("kill -9 of gunicorn, both workers and a scheduler")
        self.gunicorn.stop()
        time.sleep(away)
        self.gunicorn.start()
        self.note("gunicorn runs again")
        self.schedulers[0].start()
        self.note("the scheduler runs again")


@contextlib.contextmanager
def installation(url: str, directory: Path, tasks: int, *, seed: int, **host: str) -> Iterator[Installation]:
    """Make the tables and start everything; stop it afterwards, and show the logs where a test failed.

    Args:
        url: the SQLAlchemy URL of an empty database.
        directory: for the logs.
        tasks: how many will be submitted.
        seed: of the creator's faults (which also depend on the tasks' random ids).
        host: more environment variables of the host's processes.
    """
    database = HostDatabase(url).create()
    creator = CreatorSimulator(
        time_scale=0.05,
        callback_timeout=5.0,
        work_time=(0.0, 3.0),
        faults=faults(tasks),
        orphans="failed",
        restart_after=1.0,
        seed=seed,
    )
    with creator, contextlib.ExitStack() as stack:
        environment = {**HOST, "DATABASE_URL": url, "CREATOR_API_BASE_URL": creator.base_url, **host}
        gunicorn = stack.enter_context(Gunicorn(FACTORY, env=environment))
        schedulers = [Scheduler(environment, directory / f"scheduler-{number}.log") for number in (1, 2)]
        for scheduler in schedulers:
            stack.callback(scheduler.end, signal.SIGTERM)
            scheduler.start()
        site = Installation(creator, gunicorn, schedulers, database)
        try:
            yield site
        except BaseException:
            for log in site.logs:
                print(f"--- log\n{log[:4_000]}\n...\n{log[-8_000:]}")  # noqa: T201 - captured, shown on failure
            raise


# --- the work ------------------------------------------------------------------------------------------------------


def submit_all(site: Installation, tasks: int, *, per_second: float, at: dict[int, Callable[[], None]]) -> None:
    """Submit tasks over HTTP at a steady pace; whoever gets no answer looks whether the task is there.

    Args:
        site: the installation.
        tasks: how many.
        per_second: the pace.
        at: what to do when the task of a number is due; it runs beside the submissions.
    """
    numbers = itertools.count()
    lock = threading.Lock()
    began = time.monotonic()

    def work(pool: ThreadPoolExecutor, incidents: list[Any]) -> None:
        while True:
            with lock:
                number = next(numbers)
                if number in at:
                    incidents.append(pool.submit(at[number]))
            if number >= tasks:
                return
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            _submit_one(site, number)

    incidents: list[Any] = []
    with ThreadPoolExecutor(SUBMITTERS + len(at)) as pool:
        workers = [pool.submit(work, pool, incidents) for _ in range(SUBMITTERS)]
        for worker in workers:
            worker.result()
        for incident in incidents:
            incident.result()


def _submit_one(site: Installation, number: int) -> None:
    topic = f"soak {number}"
    job = {"topic": topic, "requirements": "R", "target_audience": "A", "max_retries": 0 if number % 5 == 0 else None}
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", site.gunicorn.port, timeout=30)
            try:
                connection.request("POST", "/submit", json.dumps(job), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            finally:
                connection.close()
            if answer.status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        assert time.monotonic() < deadline, f"task {number} could not be submitted"
        time.sleep(0.3)
        if _rows(site.database, sa.select(_TASKS.c.id).where(_TASKS.c.topic == topic)):
            return  # it was killed between the commit and the answer


def wait_until_settled(site: Installation, timeout: float) -> None:
    """Wait until no task is open and the creator has nothing more to do or to say.

    Raises:
        AssertionError: not within so many seconds; says what is open.
    """
    deadline = time.monotonic() + timeout
    quiet = 0
    open_: Counter[str] = Counter()
    while quiet < 3:
        counted = sa.select(_TASKS.c.status, sa.func.count().label("number")).group_by(_TASKS.c.status)
        rows = _rows(site.database, counted.where(_TASKS.c.status.in_(OPEN_STATES)))
        open_ = Counter({row.status: row.number for row in rows})
        quiet = quiet + 1 if not open_ and site.creator.idle else 0
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: open are {dict(open_)}, creator idle: {site.creator.idle}")
        time.sleep(0.3)
    site.note("every task is settled, and the creator has nothing more to say")


# --- the books -----------------------------------------------------------------------------------------------------


@dataclass
class Books:
    """What the creator knows, what the host knows, and where they differ.

    Args:
        problems: sentences, one for each difference; empty is what the soak is for.
        figures: what happened how often.
    """

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def show(self) -> str:
        return "\n".join(f"  {name:34} {value}" for name, value in self.figures.items())


def expected_status(task: Any, records: dict[str, TaskRecord], refused: set[str], misled: set[str]) -> set[str]:
    """What the creator's own truth makes of a task, see the docstring of `test_soak`; ``open`` is never right."""
    names = _names(task)
    states = {name: records[name].state if name in records else None for name in names}
    completed = {name for name, state in states.items() if state == "completed"}
    if completed - misled:
        return {"completed"}
    either = {"completed"} if completed else set()
    if any(state in {"pending", "running", "waiting"} for state in states.values()):
        return either | {"open"}
    allowed = 1 + (RETRIES if task.max_retries is None else task.max_retries)
    gave_up = names[-1] in refused or len(names) == task.attempt == allowed
    return either | {"failed" if gave_up else "open"}


def misled_about(creator: CreatorSimulator) -> set[str]:
    """Attempts that the creator completed, told us had failed, and never got to tell us were completed.

    A request that it did not live to see answered may have told us, too.
    """
    told = {record.task_id for record in creator.callbacks if record.attempt and record.event == "failed"}
    return told - {record.task_id for record in creator.callbacks if record.delivered and record.event == "completed"}


def balance(site: Installation) -> Books:
    """Compare every task with the creator's truth, count the effects, and look for each one's explanation."""
    books = Books()
    complain = books.problems.append
    records, refused, misled = site.creator.tasks, set(site.creator.refused), misled_about(site.creator)
    everything = _read_everything(site.database)
    tasks, deliveries, contents = everything["tasks"], everything["deliveries"], everything["contents"]
    history: dict[str, list[Any]] = {}
    for delivery in deliveries:
        history.setdefault(delivery.task_id or "", []).append(delivery)
    effects: dict[str, list[str]] = {}
    for content in contents:
        effects.setdefault(content.task_id, []).append(content.body)

    settled_by: Counter[str] = Counter()
    delays: list[float] = []
    slowest: list[tuple[Any, ...]] = []
    for task in tasks:
        rows = history.get(task.task_id, [])
        about = f"{task.topic} ({task.task_id}, {[(r.source, r.event, r.attempt, r.verdict) for r in rows]})"
        expected = expected_status(task, records, refused, misled)
        if task.status not in expected:
            complain(f"{about} is {task.status}; the creator's truth is {' or '.join(expected)}")
        if len(expected) > 1:
            settled_by["misled for good"] += 1
        bodies = effects.pop(task.task_id, [])
        if len(bodies) != (task.status == "completed"):
            complain(f"{about} is {task.status} and has {len(bodies)} effects")
        results = _results_of(task, records)
        if not set(bodies) <= results:
            complain(f"{about} has an effect that is none of the creator's {len(results)} results")
        changes = [row for row in rows if row.verdict == "processed"]
        deciding = [row for row in changes if row.status_after == task.status]
        if not deciding or changes[-1] is not deciding[-1]:
            complain(f"{about}: the last change in its history does not lead to {task.status}")
            continue
        if deciding[-1].source not in {"webhook", "poll", "response"}:
            complain(f"{about} was settled by {deciding[-1].source}")
        if sum(row.event == "completed" for row in changes) != (task.status == "completed"):
            complain(f"{about}: the history tells of another number of completions than one")
        if [row for row in rows if row.verdict in {"failed", "dead", "queued"}]:
            complain(f"{about} has a delivery that still waits for its effect")
        settled_by[f"{task.status} by {deciding[-1].source}{', late' if deciding[-1].late else ''}"] += 1
        known = [records[name] for name in _names(task) if name in records]
        if ends := [record.finished_at for record in known if record.state == "completed" and record.finished_at]:
            delays.append((task.finished_at - min(ends)) / timedelta(seconds=1))
            if delays[-1] == max(delays):
                slowest = [(f"{row.processed_at:%T}", row.source, row.event, row.attempt, row.verdict) for row in rows]
    if effects:
        complain(f"{len(effects)} tasks that do not exist have effects")
    if any(content.body == FORGED_CONTENT for content in contents):
        complain("a forged content was stored")
    if not set(Counter(task.topic for task in tasks).values()) <= {1}:
        complain("a task was submitted twice")
    _check_the_creators_side(site, books)

    sent = [record for record in site.creator.callbacks if record.attempt]
    lost = [record for record in site.creator.callbacks if not record.attempt]
    books.figures |= {
        "tasks": len(tasks),
        "attempts, by number": dict(sorted(Counter(task.attempt for task in tasks).items())),
        "settled": dict(settled_by.most_common()),
        "deliveries": dict(Counter(f"{row.source} {row.verdict}" for row in deliveries).most_common()),
        "of them late": sum(row.late for row in deliveries),
        "refused requests": {
            code: sum(row.occurrences for row in deliveries if row.error == code and row.verdict == "rejected")
            for code in {row.error for row in deliveries if row.verdict == "rejected"}
        },
        "callback requests": dict(Counter(str(record.status or record.error) for record in sent).most_common()),
        "callbacks never sent": dict(Counter(record.faults[-1] for record in lost).most_common()),
        "forged requests": dict(Counter(str(r.status or r.error) for r in sent if r.forged).most_common()),
        "requests to the creator": dict(site.creator.requests),
        "deaths of the creator": site.creator.death_reasons,
        "tracebacks in the logs": sum(log.count("Traceback") for log in site.logs),
        "seconds from completion to effect": _spread(delays),
        "history of the slowest": slowest,
    }
    return books


def _check_the_creators_side(site: Installation, books: Books) -> None:
    """It died of nothing that we asked, got no job twice, and no forger was believed."""
    if reasons := [reason for reason in site.creator.death_reasons if reason != "crash"]:
        books.problems.append(f"the creator died of {Counter(reasons)}")
    believed = [record for record in site.creator.callbacks if record.forged and record.delivered]
    if believed:
        books.problems.append(f"{len(believed)} forged callbacks were answered with 200")
    twice = [r for r in site.creator.callbacks if r.event == "failed" and b"UNIQUE constraint" in r.body]
    if twice:
        books.problems.append(f"{len(twice)} jobs were submitted twice under one id")


def _read_everything(database: HostDatabase) -> dict[str, Sequence[sa.Row[Any]]]:
    tables = {"tasks": _TASKS, "deliveries": _DELIVERIES, "contents": _CONTENTS}
    return {name: _rows(database, sa.select(table).order_by(table.c.id)) for name, table in tables.items()}


def _rows(database: HostDatabase, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
    with database.engine.connect() as connection:
        return connection.execute(statement).all()


def _names(task: Any) -> list[str]:
    return [*(task.earlier_creator_task_ids or ()), task.creator_task_id]


def _results_of(task: Any, records: dict[str, TaskRecord]) -> set[str]:
    """Every content that the creator has written for any attempt of a task."""
    known = [records[name] for name in _names(task) if name in records]
    results = [result for record in known for result in (record.result, record.other_result) if result is not None]
    return {result["content"] for result in results}


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median": round(statistics.median(ordered), 2),
        "95 %": round(ordered[int(len(ordered) * 0.95)], 2),
        "most": round(ordered[-1], 2),
    }
