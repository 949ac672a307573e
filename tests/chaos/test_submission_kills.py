"""A process killed at any step of handing a task over: another one finishes, and the creator is given it once.

As a program (``python -m tests.chaos.test_submission_kills DATABASE_URL CREATOR_URL``) this file is the process that
is killed: for every line on stdin (the number or the name of a step, and the time) it forks, and the child sweeps until
that step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.creators import HttpCreator, Job, Report
from flask_contenthub_webhook.testing import CreatorSimulator
from flask_contenthub_webhook.testing.live import LiveApp
from tests.support.host import Host, make_host
from tests.support.processes import PROJECT_ROOT, clean_environment

LEASE = 100
"""A little longer than the lease of a claimed task: 3 s, twice 30 s, and 30 s."""
CONFIG: dict[str, Any] = {
    "WEBHOOK_CALLBACK_BASE_URL": "http://127.0.0.1:9",
    "WEBHOOK_SUBMIT_THREADS": 0,
    "CREATOR_SUBMIT_WAIT": 3,
}
MOST_STEPS = 60


class Killer:
    """Counts the steps of this process, and kills it before the one that it is told."""

    def __init__(self, last: str) -> None:
        self._last = last
        self.steps: list[str] = []

    def step(self, name: str) -> None:
        self.steps.append(name)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        if self._last in {name, str(len(self.steps))}:
            os.kill(os.getpid(), signal.SIGKILL)


class Mortal(HttpCreator):
    """The real thing, in a process that may die before the call and after it."""

    def __init__(self, base_url: str, killer: Killer) -> None:
        super().__init__(base_url, timeout=10)
        self._killer = killer

    def submit(self, job: Job, *, wait: float) -> Report:
        self._killer.step("call")
        report = super().submit(job, wait=wait)
        self._killer.step("answer")
        return report


def main(database_url: str, creator_url: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            last, now = line.split()
            sweep_until(last, datetime.fromisoformat(now), database_url, creator_url)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(f"= {-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)}", flush=True)  # noqa: T201


def sweep_until(last: str, now: datetime, database_url: str, creator_url: str) -> None:
    """One sweep, killed before its step of this number, or this name."""
    host = make_host(database_url, create_tables=False, **CONFIG)
    host.clock.now = now
    killer = Killer(last)
    host.state.creator = Mortal(creator_url, killer)
    sa.event.listen(host.engine, "before_cursor_execute", lambda *a: killer.step(a[2].split()[0]))
    sa.event.listen(host.engine, "commit", lambda _: killer.step("COMMIT"))
    with host.app.app_context():
        host.webhook.submit_due(limit=1)


class Victims:
    """The program above."""

    def __init__(self, database_url: str, creator_url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.test_submission_kills", database_url, creator_url],
            cwd=PROJECT_ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def sweep(self, last: int | str, now: datetime) -> tuple[list[str], int]:
        """The steps that one got to, and how it ended: -9 where it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{last} {now.isoformat()}\n")
        self._process.stdin.flush()
        steps: list[str] = []
        for line in self._process.stdout:
            if line.startswith("= "):
                return steps, int(line[2:])
            steps.append(line.strip())
        raise AssertionError(f"The victim's parent is gone; the last steps: {steps}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class World:
    """The host that finishes what others left, the creator, and the victims."""

    def __init__(self, database_url: str, **simulator: Any) -> None:
        self.host: Host = make_host(database_url, **CONFIG)
        options: dict[str, Any] = {"time_scale": 0.02, "restart_after": None, "clock": self.host.clock}
        self.simulator = CreatorSimulator(**{**options, **simulator}).start()
        self.creator = HttpCreator(self.simulator.base_url, timeout=10, clock=self.host.clock)
        self.host.state.creator = self.creator
        self.victims = Victims(database_url, self.simulator.base_url)

    def close(self) -> None:
        self.victims.close()
        self.creator.close()
        self.simulator.stop()
        self.host.close()

    def submit(self) -> str:
        with self.host.app.app_context():
            task: Any = self.host.webhook.submit(topic="Tea", requirements="R", target_audience="A")
            return str(task.task_id)

    def killed_before(self, last: int | str) -> tuple[list[str], int]:
        """A victim's sweep: the steps that it got to, and how it ended."""
        return self.victims.sweep(last, self.host.clock.now)

    def sweep(self) -> Any:
        with self.host.app.app_context():
            return self.host.webhook.submit_due()

    def finish(self) -> None:
        """What schedulers do until nothing is left to do: sweep, poll."""
        for _ in range(8):
            self.host.clock.advance(LEASE)
            with self.host.app.app_context():
                self.host.webhook.submit_due()
                self.host.webhook.reconcile()
            if all(task.status == "completed" for task in self.host.tasks()):
                return

    def submissions(self) -> int:
        return self.simulator.requests["POST /api/tasks"]


@pytest.fixture
def world(request: pytest.FixtureRequest, database_url: str) -> Iterator[World]:
    world = World(database_url, **getattr(request, "param", {}))
    yield world
    world.close()


def kill_at_every_step(world: World) -> list[tuple[str, int]]:
    """Kill one sweep before each of its steps, let another process finish, and look; the steps and submissions."""
    seen: list[tuple[str, int]] = []
    for last in range(1, MOST_STEPS):
        task_id, before = world.submit(), world.submissions()
        steps, ended = world.killed_before(last)
        if ended == 0:
            assert seen, "the sweep did nothing"
            assert world.host.task(task_id).status in {"completed", "submitted"}
            return seen
        assert ended == -signal.SIGKILL
        assert len(steps) == last
        world.finish()
        task = world.host.task(task_id)
        told = f"killed before step {last} of {steps}"
        assert (task.status, task.attempt) == ("completed", 1), told
        assert world.submissions() - before == 1, told
        assert len(world.host.contents(task_id)) == 1, told
        seen.append((steps[-1], world.submissions() - before))
    raise AssertionError("The sweep never ended.")


@pytest.mark.parametrize("world", [{"work_time": (0.0, 0.0)}], indirect=True, ids=["early result"])
def test_killed_at_any_step_it_is_submitted_exactly_once(world):
    steps = [step for step, _ in kill_at_every_step(world)]
    print(f"killed before each of {len(steps)} steps: {steps}")  # noqa: T201 - shown with -rP
    assert {"UPDATE", "COMMIT", "call", "answer"} <= set(steps)
    assert world.simulator.deaths == 0


def test_killed_while_the_creator_works(world, database_url):
    """The answer is still to come when we die; the creator works on, and its callback finds the next process."""
    with LiveApp(world.host.app):
        task_id = world.submit()
        steps, ended = world.killed_before("answer")  # between it and its record
        assert (steps[-1], ended) == ("answer", -signal.SIGKILL)
        world.simulator.wait_until_idle()
        *unanswered, last = [callback.status for callback in world.simulator.callbacks]
        assert (set(unanswered) <= {None}, last) == (True, 200)  # on a busy machine the sender may come again
    assert world.host.task(task_id).status == "completed"
    world.host.clock.advance(LEASE)
    assert world.sweep().claimed == 0
    assert world.submissions() == 1


@pytest.mark.parametrize("world", [{"work_time": None}], indirect=True, ids=["works on"])
def test_killed_with_a_creator_that_is_away_when_the_next_process_comes(world):
    """Whether it has the task cannot be found out at first; a second submission would mark the first run failed."""
    task_id = world.submit()
    name = world.host.task(task_id).creator_task_id
    steps, _ = world.killed_before("call")
    assert steps[-1] == "call"  # killed before it ...
    world.simulator.add_task(name)  # ... or right after it was sent: nobody can tell
    world.simulator.crash()

    world.host.clock.advance(LEASE)
    assert world.sweep().outcomes == {"unreachable": 1}
    world.simulator.restart()
    world.host.clock.advance(LEASE)
    world.sweep()
    assert world.submissions() == 0
    assert world.host.task(task_id).status == "submitted"


def test_many_sweepers_killed_at_random_leave_every_task_submitted_once(world):
    """A dozen tasks; a sweep is killed somewhere in each of them."""
    tasks = [world.submit() for _ in range(12)]
    for last in range(3, 60, 5):
        _, ended = world.killed_before(last)
        assert ended in {0, -signal.SIGKILL}
        world.host.clock.advance(1)
    world.finish()
    assert [world.host.task(task_id).status for task_id in tasks] == ["completed"] * 12
    assert world.submissions() == 12
    assert sorted(world.simulator.tasks) == sorted(world.host.task(task_id).creator_task_id for task_id in tasks)
    assert len(world.host.contents()) == 12


if __name__ == "__main__":
    main(*sys.argv[1:])
