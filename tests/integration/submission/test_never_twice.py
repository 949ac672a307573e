"""Jobs are counted at the service, for every cut of a submission: never two that are alive, and all tasks settle."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from flask_contenthub_webhook.core.state_machine import TERMINAL_STATES
from tests.support.counted_jobs import (
    CUTS,
    DEADLY,
    CountedCreator,
    CountingService,
    Dead,
    Powers,
    arm,
    host_for,
)
from tests.support.host import Host, completed
from tests.support.job_service import PaidJob
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.submission import BASE, raise_, reconcile, submit, sweep

EVERY_POWER = [Powers(*flags) for flags in itertools.product((True, False), repeat=3)]
LEASE, WORK, DEADLINE = 120, 600, 1800
"""Seconds: a claim is over, a job is done, a task has had its time."""


def named(powers: Powers) -> str:
    names = zip(("own names", "idempotent", "find"), powers, strict=True)
    return ", ".join(name for name, has in names if has) or "nothing"


class World:
    """Two processes on one database: the first submits and may die, the second lives on."""

    def __init__(self, first: Host, second: Host, service: CountingService) -> None:
        self.first, self.second, self.service = first, second, service
        second.clock = second.state.clock = first.clock
        second.state.creator = CountedCreator(service.url, service.powers)

    def submit_and_cut(self, cut: str) -> str:
        creator = CountedCreator(self.service.url, self.service.powers)
        self.first.state.creator = creator
        task_id = submit(self.first)
        if cut in DEADLY:
            revive = arm(self.first, creator, cut, lambda: raise_(Dead()))
            with pytest.raises(Dead):
                sweep(self.first)
            revive()
            self.first.engine.dispose()  # with the connection, the kernel ends what a dead process had begun
        else:
            self.service.loss = cut
            sweep(self.first)
        creator.close()
        return task_id

    def settle(self, task_id: str, *, callback_is_kept: bool) -> None:
        """Let the second process work, for two hours at most, and the service finish each job after ten minutes."""
        began: dict[str, int] = {}
        for second in range(0, 4 * DEADLINE, LEASE):
            self.first.clock.advance(LEASE)
            sweep(self.second)
            reconcile(self.second)
            for job in self.service.of_task(task_id):
                if job.state == "open" and second - began.setdefault(job.name, second) >= WORK:
                    self._complete(task_id, job, callback_is_kept=callback_is_kept)
            if self.first.task(task_id).status in TERMINAL_STATES:
                return

    def _complete(self, task_id: str, job: PaidJob, *, callback_is_kept: bool) -> None:
        job.state = "completed"
        if callback_is_kept:
            self.second.post(task_id, completed(job.name), attempt=job.attempt)


def check(world: World, task_id: str, cut: str, *, callback_is_kept: bool) -> None:
    task, jobs = world.first.task(task_id), world.service.of_task(task_id)
    facts = f"{cut}; callback {'kept' if callback_is_kept else 'lost'}: {task.status}, {jobs}"
    assert task.status == "completed", facts
    assert world.service.most_open <= 1, facts
    may_be_unheard = not world.service.powers.can_be_asked and not callback_is_kept
    assert len(jobs) <= (2 if may_be_unheard else 1), facts
    assert len(world.first.contents(task_id)) == 1, facts
    assert not [job for job in jobs if job.state == "open"], facts


@pytest.fixture
def worlds(hosts: Callable[..., Host], database_url: str) -> Iterator[Callable[[Powers], World]]:
    ends: list[Callable[[], object]] = []

    def make(powers: Powers) -> World:
        first = hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
        second = host_for(database_url, create_tables=False)
        service = CountingService(powers)
        service.__enter__()
        ends.extend([second.close, lambda: service.__exit__(None, None, None)])
        world = World(first, second, service)
        ends.append(world.second.state.creator.close)
        return world

    yield make
    for end in reversed(ends):
        end()


@pytest.mark.slow
@pytest.mark.parametrize("powers", EVERY_POWER, ids=named)
def test_every_cut_ends_with_one_job_and_a_settled_task(worlds, powers):
    world = worlds(powers)
    for cut, callback_is_kept in itertools.product(CUTS, (True, False)):
        task_id = world.submit_and_cut(cut)
        world.settle(task_id, callback_is_kept=callback_is_kept)
        check(world, task_id, cut, callback_is_kept=callback_is_kept)
    assert len(world.service.jobs) >= 2 * len(CUTS)  # there was something to count


@pytest.mark.slow
@pytest.mark.parametrize("cut", DEADLY)
@pytest.mark.parametrize("powers", [Powers(False, True, False), Powers(False, False, True)], ids=named)
def test_a_process_that_really_dies_leaves_one_job_and_a_task_that_settles(worlds, database_url, powers, cut):
    world = worlds(powers)
    flags = "".join("y" if flag else "n" for flag in powers)
    command = [sys.executable, "-m", "tests.support.counted_jobs", database_url, world.service.url, flags, cut]
    ended = subprocess.run(
        command, cwd=PROJECT_ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 9, ended.stderr
    task_id = ended.stdout.strip()
    world.settle(task_id, callback_is_kept=False)
    check(world, task_id, cut, callback_is_kept=False)
