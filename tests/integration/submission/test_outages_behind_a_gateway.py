"""A service that is away, with a gateway that answers for it, and four processes that want something of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.testing import CreatorSimulator
from flask_contenthub_webhook.testing.faults import Faults
from tests.support.host import Host, completed, make_host
from tests.support.submission import BASE, cancel, reconcile, submit, sweep

OPEN = {"pending", "submitted", "processing"}
OPTIONS: dict[str, Any] = {
    "WEBHOOK_CALLBACK_BASE_URL": BASE,
    "WEBHOOK_SUBMIT_THREADS": 0,
    "WEBHOOK_POLL_GRACE": 30,
    "CREATOR_SUBMIT_WAIT": 0.2,
}


class Installation:
    """Four processes of one application: each has its own memory, and they share the database and the service."""

    def __init__(self, hosts: list[Host], simulator: CreatorSimulator) -> None:
        self.hosts, self.simulator = hosts, simulator
        self.clock = hosts[0].clock
        self.draw = random.Random(13)

    def work(self) -> None:
        """Run the jobs of the scheduler in every process, in any order."""
        for host in self.draw.sample(self.hosts, len(self.hosts)):
            sweep(host)
            reconcile(host)
            self.simulator.wait_until_up()

    def pass_time(self, seconds: int, *, every: int = 5) -> Iterator[int]:
        for second in range(every, seconds + 1, every):
            self.clock.advance(every)
            self.work()
            yield second

    def finish_all(self) -> None:
        for name, record in self.simulator.tasks.items():
            if record.state == "running":
                with suppress(LookupError):
                    self.simulator.finish(name)

    def states(self) -> set[str]:
        return {task.status for task in self.hosts[0].tasks()}


@pytest.fixture
def install(hosts: Callable[..., Host], database_url: str) -> Iterator[Callable[..., Installation]]:
    ends: list[Callable[[], None]] = []

    def start(*, api_url: str | None = None, base_url: str = BASE, **options: Any) -> Installation:
        keys = {**OPTIONS, "WEBHOOK_CALLBACK_BASE_URL": base_url}
        first = hosts(database_url, **keys)
        others = [make_host(database_url, create_tables=False, **keys) for _ in range(3)]
        ends.extend(other.close for other in others)
        defaults: dict[str, Any] = {"gateway": True, "work_time": None, "restart_after": 0.0, "time_scale": 0.001}
        simulator = CreatorSimulator(**{**defaults, **options}, clock=first.clock).start()
        ends.append(simulator.stop)
        for host in (first, *others):
            host.clock = host.state.clock = first.clock
            creator = HttpCreator(simulator.base_url, timeout=20, clock=first.clock)
            host.state.creator = creator
            ends.append(creator.close)
        return Installation([first, *others], simulator)

    yield start
    for end in reversed(ends):
        end()


@pytest.mark.parametrize("answers", [(502, 504, 200, 429), (504, 502), (200,), (429,)], ids=str)
def test_after_three_minutes_of_a_gateways_answers_all_is_settled_and_nobody_was_harmed(install, answers):
    all_ = install(faults=Faults(lose=1.0))
    for host in all_.hosts:
        submit(host)
        submit(host)
    all_.work()
    in_flight = list(all_.simulator.tasks)
    all_.clock.advance(31)
    all_.work()  # the list confirms the jobs
    assert len(in_flight) == 8
    assert all_.states() == {"submitted"}

    all_.simulator.begin_outage(180, answers)
    for host in all_.hosts:
        submit(host)
        submit(host)
    all_.work()
    asked = [all_.simulator.answered_by_gateway.total()]
    for second in all_.pass_time(175):
        if second == 60:
            for name in in_flight[:4]:
                all_.simulator.finish(name)  # whose callbacks are lost
        asked.append(all_.simulator.answered_by_gateway.total())
    assert answers[0] in all_.simulator.answered_by_gateway
    assert asked[-1] <= 6
    assert all(later - sooner <= 2 for sooner, later in zip([0, *asked], asked[11:], strict=False))

    requests = all_.simulator.requests.total()
    for _ in all_.pass_time(3600, every=30):
        all_.finish_all()
    assert all_.states() == {"completed"}
    assert all_.simulator.deaths == 0
    assert len(all_.simulator.tasks) == 16  # nothing was submitted twice
    assert {task.attempt for task in all_.hosts[0].tasks()} == {1}
    assert {task.creator_task_id for task in all_.hosts[0].tasks()} == set(all_.simulator.tasks)
    assert set(all_.simulator.asked) <= set(all_.simulator.tasks)
    assert all_.simulator.requests.total() > requests


def test_submissions_that_a_gateway_refused_are_looked_for_in_the_list_and_then_made(install):
    """They counted as perhaps accepted, and the single questions about them killed the service 12 times a minute."""
    all_ = install(faults=Faults(lose=1.0))
    all_.simulator.begin_outage(40)
    task_id = submit(all_.hosts[0])
    all_.work()
    task = all_.hosts[0].task(task_id)
    assert (task.status, task.submit_tries) == ("pending", 1)
    assert task.submitting_since is not None

    for _ in all_.pass_time(180):
        pass
    assert all_.simulator.requests["GET /api/tasks"] >= 1
    assert all_.simulator.asked == {}
    assert (len(all_.simulator.tasks), all_.simulator.deaths) == (1, 0)
    assert all_.hosts[0].task(task_id).status == "submitted"


def test_a_cancellation_during_an_outage_is_told_afterwards_and_kills_nobody(install):
    all_ = install(faults=Faults(lose=1.0))
    known = submit(all_.hosts[0])
    all_.work()
    all_.clock.advance(31)
    all_.work()
    all_.simulator.begin_outage(60)
    unknown = submit(all_.hosts[1])
    all_.work()
    for task_id in (known, unknown):
        cancel(all_.hosts[2], task_id)

    for _ in all_.pass_time(1800, every=30):
        pass
    assert [record.state for record in all_.simulator.tasks.values()] == ["cancelled"]
    assert all_.simulator.deaths == 0
    assert {task.next_poll_at for task in all_.hosts[0].tasks()} == {None}


@pytest.mark.parametrize("gateway", [True, False], ids=["behind a gateway", "reached directly"])
def test_on_postgres_the_list_and_the_results_are_found_out_once_for_all_processes(install, gateway):
    """There both kill the service. Jobs with a callback settle by it; the others end with their time."""
    all_ = install(database="postgres", gateway=gateway, faults=Faults(lose=1.0))
    submit(all_.hosts[0])
    for _ in all_.pass_time(240, every=30):
        pass  # in which the list is found out
    deaths = all_.simulator.deaths
    heard = [submit(host) for host in all_.hosts]
    unheard = [submit(host) for host in all_.hosts]
    all_.work()
    assert deaths == all_.simulator.deaths == (3 if gateway else 1)
    all_.finish_all()
    for task_id in heard:
        name = all_.hosts[0].task(task_id).creator_task_id
        assert all_.hosts[0].post(task_id, completed(name), attempt=1).status_code == 200

    for _ in all_.pass_time(3 * 3600, every=60):
        pass
    assert {all_.hosts[0].task(task_id).status for task_id in heard} == {"completed"}
    assert set(all_.simulator.asked) <= set(all_.simulator.tasks)
    assert not {"GET of an unknown id", "DELETE of an unknown id"} & set(all_.simulator.death_reasons)
    assert Counter(all_.simulator.death_reasons)["GET of a result on Postgres"] <= (8 if gateway else 5)
    assert all_.simulator.deaths <= 15
    if not gateway:  # behind one, a submission that hangs is not confirmed, and no list tells of it
        assert {all_.hosts[0].task(task_id).status for task_id in unheard} == {"timeout"}
        assert len(all_.simulator.tasks) == 9
