"""Several creators of one application: each task is its own creator's, and one that is down stops no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.creators import Creators, RemoteState, Report
from flask_contenthub_webhook.errors import ConfigurationError, CreatorUnreachable
from tests.support.host import Host, make_host
from tests.support.submission import BASE, OPEN, OwnCreator, cancel, raise_, reconcile, submit, sweep

DONE = Report(state=RemoteState.COMPLETED, result={"content": "polled"}, raw=b"{}")


class Quick(OwnCreator):
    poll_interval = 7
    poll_grace = 11
    poll_max_interval = 13


class Several:
    def __init__(self, url: str, **config: Any) -> None:
        settings = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0, **config}
        self.hub, self.press = OwnCreator.__new__(OwnCreator), Quick.__new__(Quick)
        creators = Creators(hub=self.hub, press=self.press)
        self.host: Host = make_host(url, models=lambda _: {"creator": creators}, **settings)
        for creator in (self.hub, self.press):
            OwnCreator.__init__(creator, self.host)


@pytest.fixture
def both(database_url: str) -> Iterator[Several]:
    several = Several(database_url)
    yield several
    several.host.close()


class TestWhoseTask:
    def test_each_is_submitted_to_its_own(self, both: Several) -> None:
        first, second = submit(both.host, creator="hub"), submit(both.host, creator="press")
        sweep(both.host)
        assert [job.task_id for job in both.hub.jobs] == [first]
        assert [job.task_id for job in both.press.jobs] == [second]
        assert [both.host.task(task_id).creator_name for task_id in (first, second)] == ["hub", "press"]

    def test_each_is_polled_at_its_own(self, both: Several) -> None:
        first, second = submit(both.host, creator="hub"), submit(both.host, creator="press")
        sweep(both.host)
        for creator, task_id in ((both.hub, first), (both.press, second)):
            creator.known[both.host.task(task_id).creator_task_id] = DONE
        both.host.clock.advance(3600)
        assert reconcile(both.host).applied == {"processed": 2}
        assert [both.host.task(task_id).status for task_id in (first, second)] == ["completed", "completed"]

    def test_each_is_cancelled_at_its_own(self, both: Several) -> None:
        task_id = submit(both.host, creator="press")
        sweep(both.host)
        cancel(both.host, task_id)
        assert (both.hub.cancelled, both.press.cancelled) == ([], [both.host.task(task_id).creator_task_id])

    def test_with_several_the_name_is_needed(self, both: Several) -> None:
        with pytest.raises(ValueError, match=r"creator is None; it must be one of hub, press\."):
            submit(both.host)

    def test_a_name_that_is_unknown_is_refused(self, both: Several) -> None:
        with pytest.raises(ValueError, match="creator is 'pres'; it must be one of hub, press"):
            submit(both.host, creator="pres")

    def test_a_task_from_before_there_were_several_is_the_first_ones(self, both: Several) -> None:
        both.host.add_task(status="pending", creator_name=None, creator_task_id="old", next_submit_at=both.host.clock())
        sweep(both.host)
        assert ([job.creator_task_id for job in both.hub.jobs], both.press.jobs) == (["old"], [])

    def test_a_task_of_a_creator_that_is_gone_is_given_to_no_other(self, both: Several) -> None:
        task_id = both.host.add_task(
            status="pending", creator_name="gone", creator_task_id="old", next_submit_at=both.host.clock()
        )
        sweep(both.host)
        assert (both.hub.calls, both.press.calls, both.host.task(task_id).status) == ([], [], "pending")


class TestOneIsDown:
    def test_the_others_tasks_are_still_submitted(self, both: Several) -> None:
        both.hub.on_submit = lambda _: raise_(CreatorUnreachable("down"))
        for _ in range(3):
            submit(both.host, creator="hub")
        submit(both.host, creator="press")
        for _ in range(4):
            sweep(both.host, limit=1)
        assert (len(both.hub.jobs), len(both.press.jobs)) == (1, 1)

    def test_the_others_tasks_are_still_polled(self, both: Several) -> None:
        first, second = submit(both.host, creator="hub"), submit(both.host, creator="press")
        sweep(both.host)
        both.hub.on_statuses = lambda: raise_(CreatorUnreachable("down"))
        both.press.known[both.host.task(second).creator_task_id] = OPEN
        both.host.clock.advance(200)
        assert reconcile(both.host).claimed == 2
        both.host.clock.advance(1)  # the pause of the one that is down goes on
        both.press.known[both.host.task(second).creator_task_id] = DONE
        due = both.host.task(first).next_poll_at
        both.host.clock.advance(3600)
        hub = next(service for service in both.host.state.services if service.name == "hub")
        hub.pause.failed()
        report = reconcile(both.host)
        assert (report.claimed, report.paused) == (1, False)
        assert both.host.task(second).status == "completed"
        assert both.host.task(first).next_poll_at == due  # it was not claimed in vain

    def test_if_all_are_down_nothing_is_claimed(self, both: Several) -> None:
        submit(both.host, creator="hub")
        for service in both.host.state.services:
            service.pause.failed()
        assert sweep(both.host).paused
        assert reconcile(both.host).paused

    def test_one_that_hangs_does_not_delay_the_others(self, both: Several) -> None:
        first, second = submit(both.host, creator="hub"), submit(both.host, creator="press")
        sweep(both.host)
        settled = threading.Event()
        both.host.connect(task_completed, lambda *_, **__: settled.set())
        both.hub.on_statuses = lambda: None if settled.wait(30) else raise_(CreatorUnreachable("it was delayed"))
        for creator, task_id in ((both.hub, first), (both.press, second)):
            creator.known[both.host.task(task_id).creator_task_id] = DONE
        both.host.clock.advance(3600)
        assert reconcile(both.host).applied == {"processed": 2}


class TestOwnSettings:
    def test_poll_intervals(self, both: Several) -> None:
        first, second = submit(both.host, creator="hub"), submit(both.host, creator="press")
        sweep(both.host)
        now = both.host.clock()
        assert both.host.task(first).next_poll_at == now + timedelta(seconds=120)
        assert both.host.task(second).next_poll_at == now + timedelta(seconds=11)
        both.press.known[both.host.task(second).creator_task_id] = OPEN
        waits = []
        for _ in range(3):
            both.host.clock.advance((both.host.task(second).next_poll_at - both.host.clock()).total_seconds())
            reconcile(both.host)
            waits.append((both.host.task(second).next_poll_at - both.host.clock()).total_seconds())
        assert waits == [13, 13, 13]

    def test_the_poller_runs_by_the_shortest(self, both: Several) -> None:
        assert both.host.state.registry.pacing.poll_interval == timedelta(seconds=7)

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [
            ("poll_interval", 0),
            ("poll_grace", "5"),
            ("poll_max_interval", True),
            ("required_result_fields", "content"),
            ("callbacks", "no"),
        ],
    )
    def test_one_that_cannot_be_used_is_refused_at_the_start(self, attribute: str, value: Any) -> None:
        wrong: Any = type("Wrong", (OwnCreator,), {attribute: value})
        with pytest.raises(ConfigurationError, match=f"{attribute} of the creator hub"):
            make_host("sqlite://", models=lambda _: {"creator": Creators(hub=wrong.__new__(wrong))})

    def test_required_result_fields(self, database_url: str, hosts: Any) -> None:
        class Painter(OwnCreator):
            required_result_fields = ("url",)

        hub, painter = OwnCreator.__new__(OwnCreator), Painter.__new__(Painter)
        creators = Creators(hub=hub, painter=painter)
        host = hosts(
            database_url,
            models=lambda _: {"creator": creators},
            WEBHOOK_CALLBACK_BASE_URL=BASE,
            WEBHOOK_SUBMIT_THREADS=0,
        )
        OwnCreator.__init__(painter, host)
        task_id = submit(host, creator="painter")
        sweep(host)
        drawn = {"url": "https://x.example", "content": ""}
        painter.known[host.task(task_id).creator_task_id] = Report(state=RemoteState.COMPLETED, result=drawn)
        host.clock.advance(3600)
        reconcile(host)
        assert (host.task(task_id).status, host.task(task_id).result) == ("completed", drawn)


class TestNames:
    @pytest.mark.parametrize("name", ["url", "standard", "Hub", "a" * 17, "1st", "", "hub!"])
    def test_one_that_cannot_stand_in_a_url_or_the_history_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="cannot be the name of a creator"):
            Creators(**{name: OwnCreator.__new__(OwnCreator)})

    def test_what_is_no_creator_is_refused(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"The creator hub \(object\) lacks submit, status, statuses, result, cancel\."
        ):
            Creators(hub=object())

    def test_none_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="needs at least one"):
            Creators()
