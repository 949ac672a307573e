"""What polling costs where callbacks come, how late it is where none comes, and how long a pass over very much takes.

The creator is the simulator, asked over real HTTP; hours pass on a clock that is moved.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.models.defaults import default_models
from flask_contenthub_webhook.tasks.reconcile import reconcile
from flask_contenthub_webhook.testing import CreatorSimulator, Faults
from tests.support import web_host
from tests.support.host import completed
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.web_database import HostDatabase
from tests.support.web_server import figure

PASS = 10
"""Seconds between two passes: what the scheduler makes of the default WEBHOOK_POLL_INTERVAL."""
NAIVE = 30
"""Seconds between two questions about one task, for whoever only polls."""
MINUTE = 60
RESULT = {"content": "# T", "htmlContent": "# T", "images": [], "wordCount": 3, "metrics": {}}


# --- requests, with callbacks and without ---------------------------------------------------------------------------


@dataclass
class Job:
    """One task: when it is submitted, and how long the creator works on it, in seconds."""

    begins: float
    lasts: float
    task_id: str = ""
    name: str = ""

    @property
    def ends(self) -> float:
        return self.begins + self.lasts


def jobs(count, *, within):
    """Tasks that begin evenly within so many seconds, and mostly take some minutes.

    Their time is log-normal with a median of four minutes: half of them take between 2.3 and 6.9 minutes, one in eight
    more than ten, none more than 29 (a task gets 30) and none less than 20 seconds.
    """
    draw = random.Random(3)
    times = [min(max(draw.lognormvariate(math.log(4 * MINUTE), 0.8), 20), 29 * MINUTE) for _ in range(count)]
    return [Job(begins=within * number / count, lasts=lasts) for number, lasts in enumerate(times)]


class Life:
    """A host and a creator, and hours that pass in seconds."""

    def __init__(self, host, creator, *, callbacks):
        self.host, self.creator, self.callbacks = host, creator, callbacks
        self.began = host.clock.now
        self.passes = 0

    def live(self, all_jobs):
        events = sorted(
            [(job.begins, 0, n, job) for n, job in enumerate(all_jobs)]
            + [(job.ends, 1, n, job) for n, job in enumerate(all_jobs)],
        )
        second = 0.0
        while events or self._open():
            while events and events[0][0] <= second:
                at, ends, _, job = events.pop(0)
                self._move_to(at)
                self._end(job) if ends else self._begin(job)
            self._move_to(second)
            reconcile(self.host.state)
            self.passes += 1
            second += PASS
            assert second < 3 * 60 * MINUTE, "some tasks stay open"

    def _move_to(self, second):
        self.host.clock.now = self.began + timedelta(seconds=second)

    def _begin(self, job):
        job.name = str(uuid.uuid4())
        url = "https://hub.example/callback"
        job.task_id = self.host.add_task(
            status="pending", creator_task_id=job.name, callback_url=url, next_poll_at=None
        )
        self.creator.add_task(job.name, created_at=self.host.clock.now)
        self.host.trigger(job.task_id, Trigger.SUBMITTED)

    def _end(self, job):
        now = self.host.clock.now
        record = self.creator.tasks[job.name]
        self.creator.add_task(job.name, state="completed", result=RESULT, created_at=record.created_at, finished_at=now)
        if self.callbacks:
            assert self.host.post(job.task_id, completed(job.name), attempt=1).status_code == 200

    def _open(self):
        with self.host.app.app_context():
            model = self.host.state.task_model
            query = sa.select(sa.func.count()).select_from(model).where(model.next_poll_at.is_not(None))
            return self.host.db.session.scalar(query)


@pytest.fixture
def live(hosts, sqlite_url):
    """A function that lets tasks live, with callbacks or without, and gives back the life."""
    host = hosts(sqlite_url, WEBHOOK_SUBMIT_THREADS=0)
    with CreatorSimulator(work_time=None, clock=host.clock) as creator:
        host.state.creator = HttpCreator(creator.base_url, clock=host.clock)

        def run(all_jobs, *, callbacks):
            life = Life(host, creator, callbacks=callbacks)
            life.live(all_jobs)
            return life

        yield run
        host.state.creator.close()
    assert not creator.deaths


@pytest.mark.slow
@pytest.mark.parametrize(
    "within",
    [
        pytest.param(MINUTE, id="a burst"),
        pytest.param(30 * MINUTE, id="a steady stream"),
    ],
)
def test_with_healthy_callbacks_polling_costs_next_to_nothing(live, within):
    all_jobs = jobs(1_000, within=within)

    life = live(all_jobs, callbacks=True)

    asked = life.creator.requests.total()
    naive = sum(math.ceil(job.lasts / NAIVE) for job in all_jobs)
    saved = 1 - asked / naive
    figure(
        f"1,000 tasks within {within // MINUTE} min: {asked} requests {dict(life.creator.requests)} in {life.passes} "
        f"passes against {naive} by polling each every {NAIVE} s: {saved:.2%} fewer"
    )
    assert {row.status for row in life.host.tasks()} == {"completed"}
    assert saved >= 0.98


@pytest.mark.slow
def test_with_every_callback_lost_the_effect_comes_within_the_current_interval(live):
    """The policy: asked at the age of 120, 180, 300, 540, 1,020 and 1,620 s, at the deadline, then every 600 s.

    A result is found by the first question after it is there, so it waits no longer than the interval in which it
    came, plus the seconds until the next pass, which may have to be waited for at both ends of the interval. A question
    may come a little early, together with others; then the next interval begins earlier, too.
    """
    all_jobs = jobs(1_000, within=30 * MINUTE)

    life = live(all_jobs, callbacks=False)

    tasks = {task.task_id: task for task in life.host.tasks()}
    assert {task.status for task in tasks.values()} == {"completed"}
    assert len(life.host.contents()) == 1_000
    delays, allowed, nominal = [], [], []
    for job in all_jobs:
        ended = life.began + timedelta(seconds=job.ends)
        delays.append((tasks[job.task_id].finished_at - ended).total_seconds())
        settings = life.host.state.settings
        ahead = 6 * settings.poll_lookahead.total_seconds()
        ages = (job.lasts, job.lasts + ahead)
        nominal.append(current_interval(settings, job.lasts) + 2 * PASS)
        allowed.append(max(current_interval(settings, age) for age in ages) + 2 * PASS)
    figure(
        f"all callbacks lost: median delay {statistics.median(delays):.0f} s (median of what the policy allows: "
        f"{statistics.median(nominal):.0f} s), most {max(delays):.0f} s, "
        f"{life.creator.requests.total()} requests {dict(life.creator.requests)}"
    )
    assert all(delay <= limit for delay, limit in zip(delays, allowed, strict=True))
    assert statistics.median(delays) <= statistics.median(nominal)


def current_interval(settings, age):
    """Seconds between the last question before this age of a task and the first one after it."""
    grace = settings.poll_grace.total_seconds()
    if age <= grace:
        return grace
    intervals = [interval.total_seconds() for interval in settings.poll_intervals[1:]]
    asked = grace
    while True:
        interval = intervals.pop(0) if len(intervals) > 1 else intervals[0]
        asked += interval
        if age <= asked:
            return interval


# --- a pass over very much ------------------------------------------------------------------------------------------

OUTSTANDING = 10_000
FINISHED = 100
"""Of them the creator has a result to fetch, each in a request of its own."""
LATENCY = 0.05
ONE_BY_ONE = 40


@pytest.mark.slow
def test_a_pass_over_ten_thousand_tasks(database_url):
    database = HostDatabase(database_url).create()
    with CreatorSimulator(work_time=None, latency=LATENCY) as creator:
        names = outstanding(database, OUTSTANDING)
        then = datetime.now(UTC) - timedelta(minutes=5)
        for number, name in enumerate(names):
            is_finished = number % (OUTSTANDING // FINISHED) == 0
            state, result = ("completed", RESULT) if is_finished else ("running", None)
            creator.add_task(name, state=state, result=result, created_at=then)

        began = time.monotonic()
        alone = HttpCreator(creator.base_url)
        for name in names[:ONE_BY_ONE]:
            alone.status(name)
        one_by_one = (time.monotonic() - began) / ONE_BY_ONE * OUTSTANDING
        alone.close()
        before = Counter(creator.requests)

        took = run_pass(DATABASE_URL=database_url, CREATOR_API_BASE_URL=creator.base_url)

    report, requests = took["report"], creator.requests - before
    figure(
        f"{OUTSTANDING} tasks, {LATENCY * 1000:.0f} ms latency: {report['seconds']:.1f} s in {requests.total()} "
        f"requests, against {one_by_one:.0f} s one by one in a row (measured on {ONE_BY_ONE}, scaled): "
        f"{one_by_one / report['seconds']:.0f} times faster; {took['claims']} statements to claim; "
        f"memory {took['before'] / 2**20:.0f} + {took['grown'] / 2**20:.0f} MiB"
    )
    assert report["claimed"] == report["asked"] == OUTSTANDING
    assert (report["applied"], report["still_open"]) == ({"processed": FINISHED}, OUTSTANDING - FINISHED)
    assert (report["missing"], report["errors"]) == (0, 0)
    assert not creator.deaths
    assert one_by_one / report["seconds"] >= 35  # 50 on a machine that does nothing else; the figure is printed
    assert took["claims"] <= 2 * OUTSTANDING / 100
    assert took["grown"] < 150 * 2**20


def outstanding(database, count):
    """Open tasks that are due for a question; the creator's ids of them, oldest first."""
    tasks = default_models(web_host.db)[0].__table__
    now = datetime.now(UTC)
    names = [str(uuid.uuid4()) for _ in range(count)]
    rows = [
        {
            "task_id": str(uuid.uuid4()),
            "creator_task_id": name,
            "status": "submitted",
            "callback_url": "https://hub.example/callback",
            "submitted_at": now - timedelta(minutes=5),
            "next_poll_at": now - timedelta(seconds=5),
            "deadline_at": now + timedelta(minutes=25),
        }
        for name in names
    ]
    with database.engine.begin() as connection:
        connection.execute(sa.insert(tasks), rows)
    return names


def run_pass(**environment):
    """Run one pass in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.soak_pass"],
        cwd=PROJECT_ROOT,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("listing", [True, False], ids=["by the list", "one by one"])
def test_a_task_whose_status_call_hangs_delays_no_other(hosts, sqlite_url, listing):
    """Without the list, the hanging call runs into its time limit; all others have had their effect long before."""
    timeout = 9.0
    faults = Faults(hang=0.01)
    host = hosts(sqlite_url, CREATOR_API_TIMEOUT=timeout)
    effects: dict[str, float] = {}
    host.connect(task_completed, lambda app, *, task, **extra: effects.setdefault(task.task_id, time.monotonic()))
    with CreatorSimulator(work_time=None, faults=faults, seed=1) as creator:
        names = [*ids(faults, 30, hang=False), *ids(faults, 1, hang=True), *ids(faults, 29, hang=False)]
        host.state.creator = HttpCreator(creator.base_url, timeout=timeout, listing=listing)
        host.state.settings = dataclasses.replace(host.state.settings, creator_list=listing)
        tasks = {}
        for name in names:
            creator.add_task(name, state="completed", result=RESULT, created_at=host.clock.now)
            values = {"creator_task_id": name, "submitted_at": host.clock.now, "next_poll_at": host.clock.now}
            tasks[host.add_task(**values, callback_url="https://hub.example/callback")] = name

        began = time.monotonic()
        report = reconcile(host.state)
        host.state.creator.close()

    hanging = [task_id for task_id, name in tasks.items() if name == names[30]]
    slowest = max(at - began for at in effects.values())
    figure(
        f"60 tasks, one of which hangs for {timeout:g} s, listing {listing}: the last effect after {slowest:.1f} s, "
        f"the pass took {report.seconds:.1f} s, the hanging one was asked about {creator.asked[names[30]]} times"
    )
    assert set(tasks) - set(effects) == (set() if listing else set(hanging))
    assert report.errors == (0 if listing else 1)
    assert slowest < timeout / 2


def ids(faults, count, *, hang):
    """Ids of tasks that the simulator with seed 1 draws the fault for, or does not."""
    found = (name for name in iter(lambda: str(uuid.uuid4()), None) if faults.of(1, name).hang is hang)
    return [next(found) for _ in range(count)]
