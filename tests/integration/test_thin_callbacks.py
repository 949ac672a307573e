"""A ``completed`` without its result: the result is fetched from the creator, with no transaction open."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.creators import HttpCreator, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorUnclear
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.host import Host, at_once, completed
from tests.support.processes import wait_until
from tests.support.submission import DONE, OwnCreator

Build = Callable[..., Host]


class Watched(HttpCreator):
    """The real thing, which also notes how many database connections are in use while it is called."""

    def __init__(self, host: Host, base_url: str, **options: Any) -> None:
        super().__init__(base_url, timeout=5, clock=host.clock, **options)
        self._host = host
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.connections_in_use: list[int] = []

    def cancel(self, creator_task_id: str) -> None:
        self.cancelled.append(creator_task_id)

    def statuses(self, creator_task_ids: Any, **options: Any) -> Any:
        self._note(*creator_task_ids)
        return super().statuses(creator_task_ids, **options)

    def result(self, creator_task_id: str) -> Report:
        self._note(creator_task_id)
        return super().result(creator_task_id)

    def _note(self, *names: str) -> None:
        pool: Any = self._host.engine.pool
        self.asked += names
        self.connections_in_use.append(pool.checkedout())


@pytest.fixture
def simulator(host: Host) -> Iterator[CreatorSimulator]:
    with CreatorSimulator(clock=host.clock, restart_after=None, time_scale=0.02) as simulator:
        creator = Watched(host, simulator.base_url)
        host.state.creator = creator
        yield simulator
        creator.close()


def watched(host: Host) -> Watched:
    assert isinstance(host.state.creator, Watched)
    return host.state.creator


def a_task(host: Host, simulator: CreatorSimulator, **at_the_creator: Any) -> tuple[str, str]:
    """A submitted task, and the creator's name of it."""
    options = {"state": "completed", "result": {"content": "# From the API"}, **at_the_creator}
    name = simulator.add_task(**options).id
    return host.add_task(creator_task_id=name, submitted_at=host.clock.now), name


def retry_after_backoff(host: Host) -> Any:
    host.clock.advance(40)
    return host.retry().outcomes


def test_the_result_is_fetched_outside_a_transaction(host, simulator):
    task_id, name = a_task(host, simulator)
    answer = host.post(task_id, completed(name, None, result={"wordCount": 3, "qualityScore": 9.5}), attempt=1)
    assert (answer.status_code, answer.get_json()["outcome"]) == (200, "processed")
    task = host.task(task_id)
    assert task.status == "completed"
    assert task.result["content"] == "# From the API"
    assert task.result["qualityScore"] == 9.5  # what the callback brought stays
    assert host.contents(task_id) == ["# From the API"]
    assert watched(host).connections_in_use == [0, 0]
    assert simulator.deaths == 0


@pytest.mark.parametrize("result", [{"content": "  "}, {"content": None}, {}, ...])
def test_an_empty_content_is_as_good_as_none(sqlite_host, result):
    class Has:
        def statuses(self, names: Any, *, since: Any = None) -> Any:
            return {name: Report(state=RemoteState.COMPLETED, result={"content": "fetched"}) for name in names}

    sqlite_host.state.creator = Has()
    task_id = sqlite_host.add_task(creator_task_id="c-1")
    event = completed("c-1")
    if result is ...:
        del event["result"]
    else:
        event["result"] = result
    assert sqlite_host.post(task_id, event, attempt=1).get_json()["outcome"] == "processed"
    assert sqlite_host.contents(task_id) == ["fetched"]


def test_a_whole_callback_asks_nobody(host, simulator):
    task_id, name = a_task(host, simulator)
    host.post(task_id, completed(name), attempt=1)
    assert simulator.requests.total() == 0


def test_a_creator_that_has_none_either_fails_the_task(host, simulator):
    for at_the_creator in (
        {"result": {"content": " "}},
        {"state": "failed", "error": "no"},
        {"state": "cancelled"},
    ):
        task_id, name = a_task(host, simulator, **at_the_creator)
        answer = host.post(task_id, completed(name, None), attempt=1)
        assert answer.status_code == 200
        task = host.task(task_id)
        assert (task.status, task.error_code) == ("failed", "INVALID_RESULT")
    missing = host.add_task(creator_task_id=str(uuid.uuid4()))
    host.post(missing, completed(missing, None), attempt=1)
    assert host.task(missing).error_code == "INVALID_RESULT"
    assert host.contents() == []
    assert simulator.deaths == 0


def test_what_is_fetched_passes_the_same_checks(sqlite_host):
    class Lies:
        def statuses(self, names: Any, *, since: Any = None) -> Any:
            return {name: Report(state=RemoteState.COMPLETED, result={"content": "half \ud800"}) for name in names}

    sqlite_host.state.creator = Lies()
    task_id = sqlite_host.add_task(creator_task_id="c-1")
    assert sqlite_host.post(task_id, completed("c-1", None), attempt=1).status_code == 200
    assert sqlite_host.task(task_id).error_code == "INVALID_RESULT"


def test_a_creator_that_is_away_leaves_it_queued_and_a_later_try_completes_it(host, simulator):
    task_id, name = a_task(host, simulator)
    simulator.crash()
    answer = host.post(task_id, completed(name, None), attempt=1)
    assert (answer.status_code, answer.get_json()["outcome"]) == (202, "queued")
    (delivery,) = host.deliveries(task_id)
    assert (delivery.verdict, delivery.tries, host.task(task_id).status) == ("queued", 0, "submitted")

    assert host.retry().claimed == 0  # not due yet
    assert retry_after_backoff(host) == {"failed": 1}  # still away
    simulator.restart()
    assert retry_after_backoff(host) == {"processed": 1}
    (delivery,) = host.deliveries(task_id)
    assert (delivery.verdict, delivery.next_retry_at, delivery.error) == ("processed", None, None)
    assert (host.task(task_id).status, host.contents(task_id)) == ("completed", ["# From the API"])
    assert set(watched(host).connections_in_use) == {0}


def test_one_that_is_not_done_yet_is_asked_again(host, simulator):
    """It calls back while its row still says ``running``."""
    task_id, name = a_task(host, simulator, state="running", result=None)
    assert host.post(task_id, completed(name, None), attempt=1).status_code == 202
    simulator.add_task(name, state="completed", result={"content": "done"})
    assert retry_after_backoff(host) == {"processed": 1}
    assert host.contents(task_id) == ["done"]
    assert simulator.deaths == 0  # no result was asked for before there was one


def test_one_that_stays_away_is_parked_and_the_task_is_the_pollers(host, simulator):
    task_id, name = a_task(host, simulator)
    simulator.crash()
    host.post(task_id, completed(name, None), attempt=1)
    for _ in range(4):
        host.clock.advance(140)
        host.retry()
    (delivery,) = host.deliveries(task_id)
    assert (delivery.verdict, host.task(task_id).status) == ("dead", "submitted")
    assert host.task(task_id).next_poll_at is not None

    simulator.restart()
    assert host.replay(delivery.id).verdict == "processed"
    assert host.contents(task_id) == ["# From the API"]


def test_copies_have_one_effect(host, simulator):
    task_id, name = a_task(host, simulator)
    answers = at_once(*[lambda: host.post(task_id, completed(name, None), attempt=1).get_json()["outcome"]] * 5)
    assert answers.count("processed") == 1
    assert set(answers) <= {"processed", "duplicate", "ignored"}  # the last of one that came after the effect
    before = simulator.requests.total()
    late = host.post(task_id, completed(name, None), attempt=1)
    assert (late.status_code, late.get_json()["outcome"] in {"duplicate", "ignored"}) == (200, True)
    assert simulator.requests.total() == before  # what is done is not fetched again
    assert host.contents(task_id) == ["# From the API"]


def test_a_queued_copy_of_what_was_completed_meanwhile_has_no_effect(host, simulator):
    task_id, name = a_task(host, simulator)
    simulator.crash()
    host.post(task_id, completed(name, None), attempt=1)
    host.post(task_id, completed(name, "whole"), attempt=1)
    (verdict,) = retry_after_backoff(host)
    assert verdict in {"duplicate", "ignored"}
    assert host.contents(task_id) == ["whole"]


def test_another_tasks_result_is_never_fetched(host, simulator):
    """Signed over its body, task B's event comes to A's address."""
    task_a, _ = a_task(host, simulator)
    _, name_of_b = a_task(host, simulator)
    answer = host.post_signed(task_a, completed(name_of_b, None), "contenthub")
    assert answer.status_code == 409
    assert host.post(str(uuid.uuid4()), completed(name_of_b, None), attempt=1).status_code == 404
    assert (watched(host).asked, simulator.requests.total()) == ([], 0)
    assert host.task(task_a).status == "submitted"


def test_a_stranger_makes_nobody_ask(host, simulator):
    task_id, name = a_task(host, simulator)
    path = f"/api/v1/content/callback/{task_id}?attempt=1&token=guessed"
    assert host.post(task_id, completed(name, None), path=path).status_code == 401
    assert simulator.requests.total() == 0


def test_with_the_token_a_strange_name_is_not_asked_for(host, simulator):
    """The token vouches for the task; what the creator is asked for is our own name of it."""
    task_id, name = a_task(host, simulator)
    assert host.post(task_id, completed("../stats", None), attempt=1).status_code == 200
    assert set(watched(host).asked) == {name}
    assert host.contents(task_id) == ["# From the API"]


@pytest.mark.parametrize("names_its_job", [True, False], ids=["names its job", "names the task alone"])
def test_the_result_of_an_earlier_attempt_is_fetched_by_its_own_name(host, simulator, names_its_job):
    """The attempt of its URL says which one a callback is about that names the task alone."""
    first, second = (simulator.add_task(state="running").id for _ in range(2))
    task_id = host.add_task(creator_task_id=second, earlier_creator_task_ids=[first], attempt=2)
    simulator.add_task(first, state="completed", result={"content": "the first, late"})
    event = completed(first if names_its_job else task_id, None)
    assert host.post(task_id, event, attempt=1).get_json()["outcome"] == "processed"
    assert host.contents(task_id) == ["the first, late"]
    assert set(watched(host).asked) == {first}
    wait_until(lambda: watched(host).cancelled == [second], timeout=10, what="the second job is cancelled", log=str)


def test_for_an_attempt_whose_name_is_no_longer_kept_nobody_is_asked(host, simulator):
    second = simulator.add_task(state="completed", result={"content": "of another attempt"}).id
    task_id = host.add_task(creator_task_id=second, earlier_creator_task_ids=[], attempt=2)
    assert host.post(task_id, completed(task_id, None), attempt=1).get_json()["outcome"] == "stale"
    assert watched(host).asked == []


def test_a_settled_task_is_not_asked_about_unless_it_can_still_complete(host, simulator):
    cancelled = host.add_task(status="cancelled", next_poll_at=None, creator_task_id=str(uuid.uuid4()))
    assert host.post(cancelled, completed(cancelled, None), attempt=1).get_json()["outcome"] == "ignored"
    task_id, name = a_task(host, simulator)
    host.trigger(task_id, Trigger.TIMED_OUT)
    assert host.post(task_id, completed(name, None), attempt=1).get_json()["details"]["late"]
    assert host.contents(task_id) == ["# From the API"]


def test_a_creator_that_cannot_be_asked_about_many_is_asked_about_the_one(sqlite_host):
    """As a pass does: `statuses` leaves out what it could not find out, and `status` is called instead."""

    class OneByOne:
        def statuses(self, names: Any, *, since: Any = None) -> Any:
            return {}

        def status(self, name: str) -> Report:
            return Report(state=RemoteState.COMPLETED, result={"content": "fetched"})

    sqlite_host.state.creator = OneByOne()
    task_id = sqlite_host.add_task(creator_task_id="c-1", submitted_at=sqlite_host.clock.now)
    assert sqlite_host.post(task_id, completed("c-1", None), attempt=1).get_json()["outcome"] == "processed"
    assert sqlite_host.contents(task_id) == ["fetched"]


def test_a_database_that_is_locked_means_come_again(hosts, sqlite_url):
    """Reading the task is where a thin callback meets the database first."""
    host = hosts(sqlite_url, engine_options={"connect_args": {"timeout": 0.1}})
    task_id = host.add_task(creator_task_id="c-1")

    class Away:
        def statuses(self, names: Any, *, since: Any = None) -> Any:
            raise CreatorUnclear

    host.state.creator = Away()
    with host.engine.connect() as other:
        other.exec_driver_sql("BEGIN EXCLUSIVE")
        answer = host.post(task_id, completed("c-1", None), attempt=1)
        other.rollback()
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_request_does_not_wait_for_a_creator_that_hangs(hosts: Build, sqlite_url: str):
    """Its server could not stop before it is answered."""
    host, answered = hosts(sqlite_url), threading.Event()

    class Hanging(OwnCreator):
        def statuses(self, *_: Any, **__: Any) -> Any:
            answered.wait(60)
            return {"job": DONE}

    host.state.creator = Hanging(host)
    task_id = host.add_task(creator_task_id="job")
    answer = host.post(task_id, completed(task_id, content=None), attempt=1)
    assert not answered.is_set()
    answered.set()

    assert (answer.status_code, answer.get_json()["outcome"]) == (202, "queued")
    assert retry_after_backoff(host) == {"processed": 1}
    assert host.contents(task_id) == ["early"]
