"""Two servers whose clocks differ, and one whose clock is set: no call twice, nothing late, alerts that are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorUnclear
from flask_contenthub_webhook.operations.set_back import heed_clock
from flask_contenthub_webhook.signals import event_handled
from flask_contenthub_webhook.tasks.handover import look_once_more
from tests.support.host import Host, completed
from tests.support.receiver import Receiver
from tests.support.skew import SKEWS, pass_time, set_clock
from tests.support.submission import BASE, OPEN, Killed, own, reconcile, submit, sweep, with_own_creator

CONFIG: dict[str, Any] = {
    "WEBHOOK_CALLBACK_BASE_URL": BASE,
    "WEBHOOK_SUBMIT_THREADS": 0,
    "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
    "WEBHOOK_HISTORY_RETENTION_DAYS": 90,
}
HOUR = timedelta(hours=1)


@dataclass
class Servers:
    """Two servers over one database: the clock of the first is right, that of the second is not."""

    right: Host
    wrong: Host

    @property
    def each_way(self) -> Iterator[tuple[Host, Host]]:
        """The pair, and the pair the other way round."""
        yield self.right, self.wrong
        yield self.wrong, self.right


SET = {"set back by an hour": -HOUR, "set forward by an hour": HOUR}
"""A clock is set after its server has compared it with the database's."""
ON_SQLITE = ("an hour behind", "ten minutes ahead", "set back by an hour")
"""There the clock of the machine is the database's, so these differ from it."""


@pytest.fixture(
    params=[*(("postgres_url", name) for name in (*SKEWS, *SET)), *(("sqlite_url", name) for name in ON_SQLITE)],
    ids=lambda param: f"{param[0].removesuffix('_url')}: {param[1]}",
)
def servers(request: pytest.FixtureRequest, hosts: Callable[..., Host]) -> Servers:
    """With each difference of the clocks."""
    database, name = request.param
    url = request.getfixturevalue(database)
    right, wrong = (with_own_creator(hosts(url, **CONFIG, create_tables=first)) for first in (True, False))
    set_clock(right, timedelta())
    set_clock(wrong, SKEWS.get(name, timedelta()))
    if name in SET:
        wrong.state.now()
        set_clock(wrong, SET[name])
    return Servers(right, wrong)


def work(host: Host) -> Any:
    return host.retry().outcomes


def send(host: Host) -> int:
    with host.app.app_context():
        return int(host.webhook.send_due_forwards().claimed)


def alert_of(host: Host) -> Any:
    with host.app.app_context():
        return next(alert for alert in host.webhook.check_alerts() if alert.name == "failure_rate")


# --- submissions -------------------------------------------------------------------------------------------------


def test_a_task_is_handed_over_at_once_and_by_one_of_them(servers: Servers):
    for one, other in servers.each_way:
        meanwhile: list[int] = []

        def submits(job: Job, other: Host = other, meanwhile: list[int] = meanwhile) -> Report:
            meanwhile.append(sweep(other).claimed)
            return OPEN

        own(one).on_submit = submits
        submit(other)
        assert sweep(one).claimed == 1
        assert meanwhile == [0]
        assert sweep(other).claimed == 0
    assert len(own(servers.right).jobs) == len(own(servers.wrong).jobs) == 1


def test_a_submission_of_a_dead_server_is_taken_over_when_its_lease_has_ended(servers: Servers):
    for one, other in servers.each_way:
        submit(one)
        with one.app.app_context(), one.state.database.session() as session:
            assert one.state.store.claim_submissions(session, lease=timedelta(seconds=93), limit=1)
            session.commit()
        pass_time(one, seconds=70)
        assert sweep(other).claimed == sweep(one).claimed == 0
        pass_time(one, seconds=24)
        assert sweep(other).claimed == 1


# --- polls -------------------------------------------------------------------------------------------------------


def test_a_task_is_asked_about_after_its_grace_and_by_one_of_them(servers: Servers):
    for one, other in servers.each_way:
        task_id = submit(one)
        assert sweep(one).claimed == 1
        own(other).known[one.task(task_id).creator_task_id] = Report(
            state=RemoteState.COMPLETED, result={"content": "x"}
        )
        pass_time(one, seconds=95)
        assert reconcile(one).claimed == reconcile(other).claimed == 0
        pass_time(one, seconds=26)
        assert reconcile(other).applied == {"processed": 1}
        assert reconcile(one).claimed == 0


def test_a_job_is_looked_for_from_before_its_submission_by_the_clock_of_who_asks(servers: Servers):
    one = servers.wrong
    called: list[datetime] = []
    since: list[datetime] = []

    def submits(error: BaseException) -> Report:
        called.append(one.state.clock())
        raise error

    def finds(_: Job, *, since: datetime, every: list[datetime] = since) -> Report:
        every.append(since)
        return Report(state=RemoteState.MISSING)

    own(one).keeps_names, own(one).find = False, finds
    own(one).on_submit = lambda _: submits(CreatorUnclear("cut"))
    submit(one)
    assert sweep(one).outcomes == {"unclear": 1}
    pass_time(one, seconds=130)
    reconcile(one)  # asks about one task

    own(one).on_submit = lambda _: submits(Killed())
    died = submit(one)
    with pytest.raises(Killed):
        sweep(one)
    with one.app.app_context():
        task = one.state.database.ask(lambda tx: one.state.store.read_task(tx, died))
        assert look_once_more(one.state, task) is False  # as the poller does before it gives a task up
    pass_time(one, seconds=100)
    own(one).on_submit = lambda _: OPEN
    assert sweep(one).claimed == 1  # asks before it submits again

    first, second = called
    submitted = [first - timedelta(seconds=130), second, second - timedelta(seconds=100)]
    early = [(at - asked).total_seconds() for at, asked in zip(submitted, since, strict=True)]
    wait = one.state.settings.creator_submit_wait
    assert all(wait - 0.5 < seconds < wait + 10 for seconds in early), early


def test_a_task_times_out_when_its_time_is_over(servers: Servers):
    for one, other in servers.each_way:
        task_id = submit(one, timeout=1000)
        assert sweep(one).claimed == 1
        own(other).known[one.task(task_id).creator_task_id] = OPEN
        pass_time(one, seconds=970)
        assert reconcile(other).timed_out == 0
        pass_time(one, seconds=31)
        assert reconcile(other).timed_out == 1
        assert one.task(task_id).status == "timeout"


def test_a_task_made_by_hand_has_its_time(servers: Servers):
    for one, other in servers.each_way:
        task_id = one.add_task(creator_task_id=f"by-hand-{one is servers.right}", status="submitted")
        own(other).known[one.task(task_id).creator_task_id] = OPEN
        assert abs(one.task(task_id).created_at - datetime.now(UTC)) < timedelta(seconds=30)
        pass_time(one, seconds=95)
        assert reconcile(other).claimed == 0
        pass_time(one, seconds=26)
        assert (reconcile(other).claimed, one.task(task_id).status) == (1, "submitted")
        pass_time(one, seconds=1800)
        assert reconcile(other).timed_out == 1


# --- the inbox ---------------------------------------------------------------------------------------------------


def test_a_failed_event_is_tried_again_after_its_backoff_and_by_one_of_them(servers: Servers):
    for one, other in servers.each_way:
        task_id = one.add_task()
        one.publisher.broken = True
        assert one.post(task_id, completed(task_id)).status_code == 500
        one.publisher.broken = False
        pass_time(one, seconds=10)
        assert work(one) == work(other) == {}
        pass_time(one, seconds=24)
        assert work(other) == {"processed": 1}
        assert work(one) == {}
        assert len(one.contents(task_id)) == 1


def test_an_event_of_a_dead_worker_is_taken_over_when_its_lease_has_ended(servers: Servers):
    for one, other in servers.each_way:
        task_id = one.add_task()
        one.publisher.broken = True
        one.post(task_id, completed(task_id))
        one.publisher.broken = False
        pass_time(one, seconds=34)
        with one.app.app_context(), one.state.database.session() as session:
            assert one.state.store.inbox.claim(session, lease=timedelta(seconds=60), limit=1)
            session.commit()
        pass_time(one, seconds=40)
        assert work(other) == {}
        pass_time(one, seconds=21)
        assert work(other) == {"processed": 1}


# --- forwards ----------------------------------------------------------------------------------------------------


def test_a_forward_is_sent_at_once_and_by_one_of_them(servers: Servers):
    for one, other in servers.each_way:
        meanwhile: list[int] = []

        def answers(*_: Any, other: Host = other, meanwhile: list[int] = meanwhile) -> int:
            meanwhile.append(send(other))
            return 200

        with Receiver(answers) as receiver:
            task_id = submit(one, forward_to=[receiver.url("/")])
            assert one.post(task_id, completed(task_id)).status_code == 200
            assert send(other) + send(one) == 1
            assert meanwhile == [0]
            assert len(receiver.requests) == 1


def test_a_forward_is_tried_again_after_its_backoff(servers: Servers):
    for one, other in servers.each_way:
        with Receiver(lambda _, number: 500 if number < 2 else 200) as receiver:
            task_id = submit(one, forward_to=[receiver.url("/")])
            one.post(task_id, completed(task_id))
            assert send(other) == 1
            pass_time(one, seconds=10)
            assert send(one) == send(other) == 0
            pass_time(one, seconds=24)
            assert send(one) == 1
            pass_time(one, seconds=30)
            assert send(one) == send(other) == 0
            pass_time(one, seconds=38)
            assert send(other) == 1
            assert len(receiver.requests) == 3


# --- the history: alerts, latencies, the purge -------------------------------------------------------------------


def test_alerts_see_what_every_server_decided(servers: Servers):
    for one, _ in servers.each_way:
        for number in range(15):
            task_id = one.add_task()
            one.publisher.broken = number < 6
            one.post(task_id, completed(task_id))
        one.publisher.broken = False
    for host in (servers.right, servers.wrong):
        alert = alert_of(host)
        assert (alert.raised, alert.value, alert.sample) == (True, 0.4, 30)
    pass_time(servers.right, minutes=6)
    assert [alert_of(host).sample for host in (servers.right, servers.wrong)] == [0, 0]


def test_times_in_the_history_are_those_of_the_database(servers: Servers):
    for one, _ in servers.each_way:
        task_id = one.add_task()
        one.post(task_id, completed(task_id))
        row = one.deliveries(task_id)[-1]
        assert abs(row.received_at - datetime.now(UTC)) < timedelta(seconds=30)
        assert row.received_at <= row.processed_at
        assert 0 <= row.latency_ms < 30_000
        assert abs(one.task(task_id).finished_at - datetime.now(UTC)) < timedelta(seconds=30)


def test_the_time_to_an_effect_is_measured_by_one_clock(servers: Servers):
    for one, other in servers.each_way:
        seconds: list[float] = []
        for host in (one, other):
            host.connect(
                event_handled,
                lambda app, *, arrived_at=None, seconds=seconds, host=host, **extra: seconds.append(
                    (host.state.clock() - arrived_at).total_seconds() if arrived_at else 0.0
                ),
            )
        kept, task_id = one.add_task(), one.add_task()
        one.publisher.broken = True
        one.post(kept, completed(kept))
        one.publisher.broken = False
        one.post(task_id, completed(task_id))
        pass_time(one, seconds=40)
        assert work(other) == {"processed": 1}
        failed, at_once, later = seconds
        assert failed == 0
        assert 0 <= at_once < 30
        assert 40 <= later < 70


def test_a_purge_takes_what_is_older_than_its_retention_and_nothing_else(servers: Servers):
    def count() -> int:
        with servers.right.app.app_context():
            model = servers.right.state.delivery_model
            return int(servers.right.db.session.scalar(sa.select(sa.func.count(model.id))) or 0)

    def purge(host: Host) -> int:
        with host.app.app_context():
            return int(host.webhook.purge())

    for one, other in servers.each_way:
        for _ in range(20):
            task_id = one.add_task()
            one.post(task_id, completed(task_id))
        pass_time(one, days=90, seconds=-60)
        assert purge(other) == purge(one) == 0
        pass_time(one, seconds=90)
        assert purge(other) == 20
        assert count() == 0


# --- the clock of the database -----------------------------------------------------------------------------------


def test_what_waits_when_the_clock_of_the_database_is_set_back_is_due_in_its_usual_time(
    hosts: Callable[..., Host], database_url: str
):
    host = set_clock(with_own_creator(hosts(database_url, **CONFIG)), timedelta())
    failing, open_ = host.add_task(), submit(host)
    host.publisher.broken = True
    host.post(failing, completed(failing))
    host.publisher.broken = False
    assert sweep(host).claimed == 1
    waiting = submit(host)
    with host.app.app_context(), host.state.database.session() as session:
        assert host.state.store.claim_submissions(session, lease=timedelta(seconds=93), limit=1)  # and dies
        session.commit()
    assert heed_clock(host.state) == 0

    pass_time(host, hours=-1)  # for what is in the database, the clock was set back
    jobs = host.state.jobs.value
    jobs.clock_memory = replace(jobs.clock_memory, database=jobs.clock_memory.database + HOUR)
    assert heed_clock(host.state) == 5
    assert heed_clock(host.state) == 0
    assert work(host) == {}
    pass_time(host, seconds=150)
    assert work(host) == {"processed": 1}
    assert sweep(host).claimed == 1
    assert host.task(waiting).status == "submitted"
    pass_time(host, seconds=800)
    assert reconcile(host).claimed >= 1
    assert host.task(open_).polls == 1


def test_what_is_noted_when_the_clock_of_the_database_is_set_back_is_over_in_its_usual_time(
    hosts: Callable[..., Host], database_url: str
):
    host = set_clock(with_own_creator(hosts(database_url, **CONFIG)), timedelta())
    assert heed_clock(host.state) == 0
    with host.app.app_context():
        service = host.state.service
        service.pause.failed()
        service.pause.holds.failed("a list", first=86_400)
        host.webhook.check_alerts()
        now = host.state.now()
        alert = sa.insert(host.state.models.alert.__table__)
        with host.engine.begin() as connection:
            connection.execute(alert.values(name="job:poll", raised=False, checked_at=now, sample=0, version=1))
            connection.execute(alert.values(name="failure:x", raised=False, changed_at=now, sample=0, version=1))

    pass_time(host, hours=-6)
    jobs = host.state.jobs.value
    jobs.clock_memory = replace(jobs.clock_memory, database=jobs.clock_memory.database + 6 * HOUR)
    with host.app.app_context():
        service.pause.holds.refresh(at_once=True)
        assert service.pause.holds.remaining("all calls") > 21_000
        assert heed_clock(host.state) >= 4
        assert heed_clock(host.state) == 0
        service.pause.holds.refresh(at_once=True)
        assert 0 < service.pause.holds.remaining("all calls") <= 300
        assert 86_000 < service.pause.holds.remaining("a list") <= 86_400
    model, now = host.state.models.alert, host.state.now()
    with host.engine.connect() as connection:
        rows = connection.execute(sa.select(model.name, model.checked_at, model.changed_at)).all()
    times = [at for name, *moments in rows if not name.startswith("away:") for at in moments if at is not None]
    assert len(times) >= 2
    assert max(times) <= now
    pass_time(host, seconds=301)
    submit(host)
    assert sweep(host).outcomes == {"submitted": 1}


def test_a_clock_of_one_server_that_is_set_back_moves_nothing(hosts: Callable[..., Host], postgres_url: str):
    host = set_clock(with_own_creator(hosts(postgres_url, **CONFIG)), timedelta())
    submit(host)
    assert heed_clock(host.state) == 0
    pass_time(host, hours=-1)
    set_clock(host, -HOUR)
    assert heed_clock(host.state) == 0


def test_the_time_costs_no_connection_again(hosts: Callable[..., Host], database_url: str) -> None:
    host = hosts(database_url)
    host.state.clock = host.state.store.clock.wall  # the real one
    before = host.state.now()
    opened: list[Any] = []
    sa.event.listen(host.engine, "checkout", lambda *_: opened.append(True))
    assert timedelta() <= host.state.now() - before < HOUR
    assert opened == []
