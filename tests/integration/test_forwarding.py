"""Events are sent on: committed with their effect, signed, filtered for each URL, tried again, left alone, replayed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import sqlalchemy as sa
import standardwebhooks
import svix
from werkzeug.serving import make_server

from docs import forward_receiver
from flask_contenthub_webhook import EXISTS, MISSING, ForwardTarget, delivery_processed, generate_secret
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.errors import ConfigurationError, ForwardNotFound, ReplayRefused
from flask_contenthub_webhook.forwarding.post import Poster
from flask_contenthub_webhook.forwarding.send import ForwardReport
from flask_contenthub_webhook.signals import forward_finished
from flask_contenthub_webhook.storage.dialect import Capabilities
from flask_contenthub_webhook.storage.forwards import Outbox
from tests.support.host import SECRET, Host, at_once, completed, custom, failed, progress
from tests.support.receiver import Received, Receiver, Reply

Build = Callable[..., Host]
FORWARD_SECRET = "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw=="
LEASE = 41
"""Seconds: a little more than WEBHOOK_FORWARD_TIMEOUT and half a minute."""
CONFIG: dict[str, Any] = {
    "WEBHOOK_FORWARD_SECRET": FORWARD_SECRET,
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
    "WEBHOOK_SUBMIT_THREADS": 0,
    "WEBHOOK_CALLBACK_BASE_URL": "https://hub.example",
}


class QuietCreator:
    """Takes every job and never says a word."""

    def submit(self, job: Any, *, wait: float) -> Report:
        return Report(state=RemoteState.OPEN)

    def statuses(self, names: Any, *, since: Any = None) -> Mapping[str, Report]:
        return {name: Report(state=RemoteState.OPEN) for name in names}

    def status(self, name: str) -> Report:
        return Report(state=RemoteState.OPEN)

    result = status

    def cancel(self, name: str) -> None: ...


class Hub:
    """A host that sends on, and what a test asks it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.state.creator = QuietCreator()

    def submit(self, *targets: Any, **options: Any) -> str:
        with self.host.app.app_context():
            return str(self.host.webhook.submit(topic="T", forward_to=targets, **options).task_id)

    def complete(self, task_id: str, **more: Any) -> None:
        assert self.host.post(task_id, completed("the creator's own id", **more)).status_code == 200

    def send(self, **options: Any) -> ForwardReport:
        with self.host.app.app_context():
            return self.host.webhook.send_due_forwards(**options)

    def replay(self, forward_id: int) -> None:
        with self.host.app.app_context():
            self.host.webhook.replay_forward(forward_id)

    def forwards(self) -> list[Any]:
        return self._all(self.host.state.outbox.forwards.model)

    def attempts(self) -> list[Any]:
        return self._all(self.host.state.outbox.attempts.model)

    def statuses(self) -> list[str]:
        return [forward.status for forward in self.forwards()]

    def _all(self, model: Any) -> list[Any]:
        with self.host.app.app_context():
            rows = list(self.host.db.session.scalars(sa.select(model).order_by(model.id)))
            self.host.db.session.expunge_all()
            return rows


@pytest.fixture
def hubs(hosts: Build) -> Callable[..., Hub]:
    return lambda url, **config: Hub(hosts(url, **{**CONFIG, **config}))


@pytest.fixture
def hub(hubs: Callable[..., Hub], database_url: str) -> Hub:
    return hubs(database_url)


@pytest.fixture
def sqlite_hub(hubs: Callable[..., Hub], sqlite_url: str) -> Hub:
    return hubs(sqlite_url)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def events(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests]


def signature_headers(request: Received) -> dict[str, str]:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {name: str(request.header(name)) for name in names}


# --- what is sent --------------------------------------------------------------------------------------------


def test_a_completed_task_is_sent_on_under_our_id_and_nothing_else_of_it_changes(hub, receiver):
    task_id = hub.submit(receiver.url("/hook?key=7"))
    hub.complete(task_id)

    assert hub.send().outcomes == {"delivered": 1}

    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/hook?key=7")
    assert request.header("content-type") == "application/json"
    assert request.header("host") == receiver.netloc
    assert json.loads(request.body) == {**completed("x"), "taskId": task_id}
    (forward,), (attempt,) = hub.forwards(), hub.attempts()
    assert (forward.status, forward.tries, forward.next_try_at, forward.event) == ("delivered", 1, None, "completed")
    assert (forward.task_id, forward.delivery_id) == (task_id, hub.host.deliveries(task_id)[-1].id)
    assert forward.finished_at == attempt.started_at == hub.host.clock.now
    assert (attempt.forward_id, attempt.number, attempt.status_code, attempt.error) == (forward.id, 1, 200, None)
    assert attempt.address == "127.0.0.1"
    assert attempt.duration_ms > 0


@pytest.mark.parametrize("package", [standardwebhooks, svix], ids=lambda package: package.__name__)
def test_the_receivers_own_library_verifies_it(sqlite_hub, receiver, package):
    task_id = sqlite_hub.submit(receiver.url())
    sqlite_hub.complete(task_id)
    sqlite_hub.send()

    (request,) = receiver.requests
    payload = package.Webhook(FORWARD_SECRET).verify(request.body, signature_headers(request))

    assert (payload or json.loads(request.body))["taskId"] == task_id
    with pytest.raises(package.WebhookVerificationError):
        package.Webhook(generate_secret()).verify(request.body, signature_headers(request))


def test_the_receiver_of_the_documentation_takes_each_event_once(sqlite_hub, monkeypatch):
    monkeypatch.setenv("HUB_SECRET", FORWARD_SECRET)
    server = make_server("127.0.0.1", 0, forward_receiver.app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        task_id = sqlite_hub.submit(f"http://127.0.0.1:{server.server_port}/articles")
        sqlite_hub.complete(task_id)
        sqlite_hub.send()
        sqlite_hub.replay(1)
        sqlite_hub.send()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert [attempt.status_code for attempt in sqlite_hub.attempts()] == [204, 204]
    assert forward_receiver.articles == {task_id: completed(task_id)["result"]["content"]}
    assert len(forward_receiver.seen) == 1


def test_while_secrets_rotate_both_sign(hubs, sqlite_url, receiver):
    old, new = generate_secret(), generate_secret()
    hub = hubs(sqlite_url, WEBHOOK_FORWARD_SECRET=[new, old])
    hub.complete(hub.submit(receiver.url()))
    hub.send()

    (request,) = receiver.requests
    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(request.body, signature_headers(request))


def test_every_configured_url_gets_it_and_the_tasks_own_say_counts(hubs, sqlite_url):
    with Receiver() as everyones, Receiver() as both, Receiver() as own:
        hub = hubs(sqlite_url, WEBHOOK_FORWARD_URLS=f"{everyones.url()}, {both.url()}")
        hub.complete(hub.submit(own.url(), {"url": both.url(), "include": ["status"]}))
        hub.complete(hub.host.add_task())
        hub.send()

        assert [len(r.requests) for r in (everyones, both, own)] == [2, 2, 1]
        assert [sorted(event) for event in events(both)] == [
            ["event", "status", "taskId", "timestamp"],
            sorted(completed("x")),
        ]


def test_endings_without_the_senders_word_are_told_as_failures(sqlite_hub, receiver):
    host, url = sqlite_hub.host, receiver.url()
    cancelled, late, invalid = (sqlite_hub.submit(url, max_retries=0) for _ in range(3))
    host.trigger(cancelled, Trigger.CANCELLED)
    host.pass_deadline(late)
    host.trigger(late, Trigger.TIMED_OUT)
    host.state.creator = None
    host.post(invalid, completed(invalid, None))
    sqlite_hub.send()

    told = {event["taskId"]: event for event in events(receiver)}
    assert {event["event"] for event in told.values()} == {"failed"}
    codes = {task_id: event["error"]["code"] for task_id, event in told.items()}
    assert codes == {cancelled: "CANCELLED", late: "TIMED_OUT", invalid: "INVALID_RESULT"}
    assert all(event["error"]["message"] and event["timestamp"].endswith("Z") for event in told.values())


def test_an_attempt_that_is_followed_by_another_is_nobodys_business(sqlite_hub, receiver):
    task_id = sqlite_hub.submit(receiver.url(), max_retries=1)
    sqlite_hub.host.post(task_id, failed(task_id, "once"), attempt=1)
    sqlite_hub.host.post(task_id, failed(task_id, "twice"), attempt=2)
    sqlite_hub.send()

    assert [event["error"]["message"] for event in events(receiver)] == ["twice"]


def test_what_has_no_effect_is_not_sent_on(sqlite_hub, receiver):
    task_id = sqlite_hub.submit(receiver.url())
    sqlite_hub.complete(task_id)
    sqlite_hub.complete(task_id)
    sqlite_hub.host.post(task_id, failed(task_id))
    sqlite_hub.send()

    assert [event["event"] for event in events(receiver)] == ["completed"]


def test_a_late_result_follows_the_failure(sqlite_hub, receiver):
    task_id = sqlite_hub.submit(receiver.url(), max_retries=0)
    sqlite_hub.host.post(task_id, failed(task_id))
    sqlite_hub.host.clock.advance(1)
    sqlite_hub.complete(task_id)
    sqlite_hub.send(limit=1)
    sqlite_hub.send()

    assert [event["event"] for event in events(receiver)] == ["failed", "completed"]


# --- filters -------------------------------------------------------------------------------------------------


def test_progress_and_events_of_ones_own_are_sent_to_who_asks_for_them(hubs, sqlite_url):
    hub = hubs(sqlite_url, WEBHOOK_EVENTS="illustrated")
    with Receiver() as endings, Receiver() as all_of_it:
        target = {"url": all_of_it.url(), "events": ["progress", "illustrated", "completed"]}
        task_id = hub.submit(endings.url(), target)
        hub.host.post(task_id, progress(task_id, 40))
        hub.host.post(task_id, custom(task_id, "illustrated"))
        hub.complete(task_id)
        hub.send()

        assert [event["event"] for event in events(endings)] == ["completed"]
        assert {event["event"] for event in events(all_of_it)} == {"progress", "illustrated", "completed"}


@pytest.mark.parametrize(
    ("where", "is_sent"),
    [
        ({"metadata.topic": "键"}, True),
        ({"metadata.topic": ["news", "键"]}, True),
        ({"metadata.topic": "news"}, False),
        ({"result.metrics.cost": EXISTS, "result.images": MISSING}, True),
        ({"result.metrics.cost": {"$exists": True}, "result.images": {"$exists": False}}, True),
        ({"result.images": {"$exists": True}}, False),
    ],
    ids=str,
)
def test_a_filter_says_which_events_go_to_a_url(sqlite_hub, receiver, where, is_sent):
    sqlite_hub.complete(sqlite_hub.submit(ForwardTarget(receiver.url(), where=where)))

    assert len(sqlite_hub.forwards()) == is_sent


def test_fields_are_included_and_left_out(sqlite_hub):
    with Receiver() as some, Receiver() as most:
        task_id = sqlite_hub.submit(
            {
                "url": some.url(),
                "include": ["result.content", "result.metrics", "nothing"],
                "exclude": ["result.metrics.cost"],
            },
            {"url": most.url(), "exclude": ["result.content", "metadata", "taskId"]},
        )
        sqlite_hub.complete(task_id)
        sqlite_hub.send()

        whole = completed(task_id)
        envelope = {"event": "completed", "taskId": task_id, "timestamp": whole["timestamp"]}
        metrics = {"tokensUsed": 12, "duration": 900}
        assert events(some) == [{**envelope, "result": {"content": whole["result"]["content"], "metrics": metrics}}]
        (sent,) = events(most)
        del whole["metadata"], whole["result"]["content"]
        assert sent == whole


# --- in the transaction --------------------------------------------------------------------------------------


def test_a_failing_handler_takes_the_forwards_with_it_and_the_retry_brings_them(hub, receiver):
    task_id = hub.submit(receiver.url())
    hub.host.publisher.broken = True
    assert hub.host.post(task_id, completed(task_id)).status_code == 500
    assert hub.forwards() == []

    hub.host.publisher.broken = False
    hub.host.clock.advance(40)
    hub.host.retry()

    assert hub.statuses() == ["waiting"]
    assert hub.send().outcomes == {"delivered": 1}


def test_all_rows_are_one_statement_and_one_commit_with_the_effect(hub):
    task_id = hub.submit(*(f"https://one.example/{number}" for number in range(20)))
    with hub.host.statements() as statements:
        hub.complete(task_id)

    assert sum("INSERT INTO webhook_forwards" in line for line in statements) == 1
    assert statements.count("COMMIT") == 1
    assert len({forward.message_id for forward in hub.forwards()}) == 20


def test_without_targets_not_a_statement_more_is_made(hubs, hosts, database_url):
    plain, able = hosts(database_url), hubs(database_url).host
    counts = []
    for host in (plain, able):
        task_id = host.add_task()
        with host.statements() as statements:
            host.post(task_id, completed(task_id), attempt=1)
        counts.append([line.split("(")[0] for line in statements])

    assert counts[0] == counts[1]


def test_a_column_written_by_hand_never_harms_the_event(sqlite_hub, caplog):
    task_id = sqlite_hub.host.add_task(forward_to=[{"address": "x"}])
    sqlite_hub.complete(task_id)

    assert sqlite_hub.host.task(task_id).status == "completed"
    assert sqlite_hub.forwards() == []
    assert "it is passed over" in caplog.text


def test_no_connection_is_held_while_a_receiver_thinks(hub):
    in_use: list[int] = []

    def think(*_: Any) -> int:
        in_use.append(hub.host.engine.pool.checkedout())
        return 200

    with Receiver(think) as receiver:
        hub.complete(hub.submit(receiver.url()))
        hub.send(limit=1)  # and looks for no other meanwhile

    assert (in_use, hub.statuses()) == ([0], ["delivered"])


def test_it_is_sent_right_after_the_commit_by_a_thread(hubs, database_url, receiver):
    hub = hubs(database_url, WEBHOOK_SUBMIT_THREADS=2)
    hub.complete(hub.submit(receiver.url("/1"), receiver.url("/2")))

    assert {request.path for request in receiver.wait_for(2)} == {"/1", "/2"}


def test_a_burst_for_one_url_needs_no_scheduler(hubs, sqlite_url):
    hub = hubs(sqlite_url, WEBHOOK_SUBMIT_THREADS=1, WEBHOOK_FORWARD_CONCURRENCY=2)
    with Receiver(Reply(delay=0.02)) as receiver:
        task_ids = [hub.host.add_task(forward_to=[receiver.url()]) for _ in range(12)]
        for task_id in task_ids:
            hub.complete(task_id)

        receiver.wait_for(12)
        assert sorted(event["taskId"] for event in events(receiver)) == sorted(task_ids)


# --- trying again --------------------------------------------------------------------------------------------


def test_a_receiver_that_is_down_for_a_while_gets_it_when_it_is_back(hub):
    answers = iter([503, 500, 200])
    with Receiver(lambda request, number: next(answers)) as receiver:
        hub.complete(hub.submit(receiver.url()))
        reports = [hub.send()]
        for backoff in (30, 60):
            assert hub.send().claimed == 0
            hub.host.clock.advance(backoff * 0.9 - 1)
            assert hub.send().claimed == 0
            hub.host.clock.advance(backoff * 0.2 + 2)
            reports.append(hub.send())

    assert [dict(report.outcomes) for report in reports] == [{"waiting": 1}, {"waiting": 1}, {"delivered": 1}]
    assert len({request.header("webhook-id") for request in receiver.requests}) == 1
    times = [int(request.header("webhook-timestamp")) for request in receiver.requests]
    assert times == sorted(set(times))
    assert [(a.number, a.status_code, a.error) for a in hub.attempts()] == [
        (1, 503, 'The receiver answered 503: {"success":true}.'),
        (2, 500, 'The receiver answered 500: {"success":true}.'),
        (3, 200, None),
    ]


def test_one_that_nobody_listens_to_is_dead_after_the_last_backoff(hubs, sqlite_url):
    hub = hubs(sqlite_url, WEBHOOK_RETRY_BACKOFF="30,60")
    with Receiver() as gone:
        url = gone.url()
    hub.complete(hub.submit(url))
    for _ in range(5):
        hub.send()
        hub.host.clock.advance(100)

    (forward,) = hub.forwards()
    assert (forward.status, forward.tries, forward.next_try_at) == ("dead", 3, None)
    assert [(a.number, a.status_code, a.address) for a in hub.attempts()] == [(n, None, "127.0.0.1") for n in (1, 2, 3)]
    assert "refused" in hub.attempts()[0].error.lower()


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("600", 600), ("1", 27), ("999999999999", 3600), ("soon", 27), ("-5", 27), ("\u0663", 27), ("", 27)],
)
def test_a_receiver_may_ask_for_more_time_within_an_hour(sqlite_hub, retry_after, seconds):
    reply = Reply(429, headers={"Retry-After": retry_after}, raw=None)
    if not retry_after.isascii():
        reply = Reply(raw=f"HTTP/1.1 429 Slow\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n".encode())
    with Receiver(reply) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        sqlite_hub.send()

    (forward,) = sqlite_hub.forwards()
    wait = (forward.next_try_at - sqlite_hub.host.clock.now).total_seconds()
    assert wait == seconds if seconds > 30 else seconds <= wait <= 33


def test_a_retry_after_may_be_a_date(sqlite_hub):
    date = format_datetime(sqlite_hub.host.clock.now.replace(microsecond=0) + timedelta(seconds=500), usegmt=True)
    with Receiver(Reply(503, headers={"Retry-After": date})) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        sqlite_hub.send()

    wait = sqlite_hub.forwards()[0].next_try_at - sqlite_hub.host.clock.now
    assert timedelta(seconds=498) < wait <= timedelta(seconds=500)


def test_gone_is_an_answer_that_ends_it_at_once(sqlite_hub):
    with Receiver(410) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        assert sqlite_hub.send().outcomes == {"dead": 1}

    assert sqlite_hub.attempts()[0].status_code == 410


def test_a_redirect_to_a_private_address_is_a_failure_and_nobody_goes_there(sqlite_hub):
    with Receiver() as private, Receiver(Reply(302, headers={"Location": private.url("/secrets")})) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        assert sqlite_hub.send().outcomes == {"waiting": 1}
        assert private.requests == []

    assert "redirect" in sqlite_hub.attempts()[0].error
    assert "not followed" in sqlite_hub.attempts()[0].error


@pytest.mark.parametrize(
    ("url", "address", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254", "link-local"),
        ("https://10.0.0.7/", "10.0.0.7", "private"),
        ("http://localhost:9/", None, "loopback"),
        ("http://2130706433/", "127.0.0.1", "loopback"),
        ("http://0x7f.1/", "127.0.0.1", "loopback"),
        ("http://[::1]/", "::1", "loopback"),
        ("http://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1", "private"),
        ("http://[64:ff9b::a9fe:a9fe]/", "64:ff9b::a9fe:a9fe", "link-local"),
    ],
)
def test_an_internal_address_is_dead_at_once_and_the_history_says_why(hubs, sqlite_url, url, address, reason):
    hub = hubs(sqlite_url, WEBHOOK_FORWARD_ALLOWED_NETWORKS="")
    hub.complete(hub.submit(url))
    assert hub.send().outcomes == {"dead": 1}

    (attempt,) = hub.attempts()
    assert attempt.address in ({address} if address else {"127.0.0.1", "::1"})
    assert f"is {reason}, and not in WEBHOOK_FORWARD_ALLOWED_NETWORKS" in attempt.error
    assert attempt.status_code is None


def test_a_name_that_changes_its_address_after_the_look_is_never_followed(hubs, sqlite_url, receiver):
    hub = hubs(sqlite_url)
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    hub.host.state.post = Poster(
        timeout=5, allowed=hub.host.state.settings.forward_allowed_networks, resolver=lambda host, port: next(answers)
    ).post
    port = receiver.netloc.split(":")[1]
    hub.complete(hub.submit(f"http://two-faced.example:{port}/"))
    assert hub.send().outcomes == {"delivered": 1}
    assert receiver.requests[0].header("host") == f"two-faced.example:{port}"

    hub.replay(1)
    assert hub.send().outcomes == {"dead": 1}
    assert [a.address for a in hub.attempts()] == ["127.0.0.1", "10.0.0.1"]


# --- many at once --------------------------------------------------------------------------------------------


def test_a_url_that_hangs_does_not_keep_the_others_waiting(hubs, sqlite_url, receiver):
    hub = hubs(sqlite_url, WEBHOOK_FORWARD_TIMEOUT=1.5)
    with Receiver(Reply(hang=True)) as hanging:
        for url in [hanging.url()] * 4 + [receiver.url()] * 6:
            hub.complete(hub.submit(url))
        report = hub.send()

        started = min(request.at for request in hanging.requests)
        assert len(receiver.requests) == 6
        assert all(request.at - started < 1 for request in receiver.requests)
        assert report.outcomes == {"delivered": 6, "waiting": 4}


@pytest.mark.parametrize(
    "capabilities", [None, Capabilities(returning=False, skip_locked=False)], ids=["usual", "plain SQL"]
)
def test_passes_that_run_at_once_send_nothing_twice(hub, receiver, capabilities):
    state = hub.host.state
    models = state.outbox.forwards.model, state.outbox.attempts.model
    state.database.outbox = Outbox(state.task_model, *models, capabilities=capabilities, clock=state.store.clock)
    for number in range(12):
        hub.complete(hub.submit(receiver.url(f"/{number}")))
    at_once(*[hub.send] * 4)
    hub.send()

    assert sorted(request.path for request in receiver.requests) == sorted(f"/{number}" for number in range(12))
    assert set(hub.statuses()) == {"delivered"}


@pytest.mark.parametrize("late_status", [200, 503])
def test_a_lease_that_ran_out_is_sent_again_under_the_same_id_and_ends_once(sqlite_hub, late_status: int):
    host, told = sqlite_hub.host, []
    host.connect(forward_finished, lambda app, *, outcome, **extra: told.append((outcome, host.clock.now)))

    def slow_then_quick(request: Received, number: int) -> int:
        if number == 1:
            return 200
        host.clock.advance(LEASE)  # while this one still waits for its answer, its lease ends and another one sends
        assert sqlite_hub.send().outcomes == {"delivered": 1}
        host.clock.advance(1)
        return late_status

    with Receiver(slow_then_quick) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        sqlite_hub.send()

        assert len({request.header("webhook-id") for request in receiver.requests}) == 1
    (forward,) = sqlite_hub.forwards()
    assert (forward.status, forward.next_try_at) == ("delivered", None)
    assert told == [("delivered", forward.finished_at)]
    assert [(a.number, a.status_code) for a in sqlite_hub.attempts()] == [(1, 200), (2, late_status)]


def test_a_failure_that_comes_late_does_not_end_the_claim_of_another(sqlite_hub):
    host, second_is_under_way, first_is_recorded = sqlite_hub.host, threading.Event(), threading.Event()
    second = threading.Thread(target=sqlite_hub.send)

    def answer(request: Received, number: int) -> int:
        if number == 0:
            host.clock.advance(LEASE)
            second.start()
            assert second_is_under_way.wait(10)
            return 503
        second_is_under_way.set()
        assert first_is_recorded.wait(10)
        return 200

    with Receiver(answer) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        sqlite_hub.send(limit=1)
        (forward,) = sqlite_hub.forwards()
        first_is_recorded.set()
        second.join()

    assert (forward.status, forward.tries) == ("waiting", 2)
    assert forward.next_try_at == host.clock.now + timedelta(seconds=40)
    assert sqlite_hub.statuses() == ["delivered"]


def test_a_url_that_keeps_failing_is_left_alone_by_every_process(hubs, database_url):
    one, other = hubs(database_url), hubs(database_url)
    other.host.clock = other.host.state.clock = one.host.clock
    with Receiver(500) as receiver, Receiver(500) as another:
        for _ in range(12):
            one.complete(one.submit(receiver.url()))
        one.complete(one.submit(another.url()))
        one.send()
        tried = len(receiver.requests)
        assert 5 <= tried <= 9  # five in a row, and what was under way beside them

        assert (one.send().claimed, other.send().claimed) == (0, 0)
        one.complete(one.submit(receiver.url()))  # what comes in during the pause waits, too
        assert (one.send().claimed, other.send().claimed) == (0, 0)

        one.host.clock.advance(34)
        other.send()  # one event tries the URL; the rest waits for longer
        assert len(receiver.requests) == tried + 1
        assert len(another.requests) == 2  # which nobody pushed back
    assert set(one.statuses()) == {"waiting"}


def test_after_the_pause_everything_arrives(sqlite_hub):
    status = 500
    with Receiver(lambda request, number: status) as receiver:
        for _ in range(8):
            sqlite_hub.complete(sqlite_hub.submit(receiver.url()))
        sqlite_hub.send()
        status = 200
        for _ in range(4):
            sqlite_hub.host.clock.advance(40)
            sqlite_hub.send()

    assert set(sqlite_hub.statuses()) == {"delivered"}


# --- replay, signal, purge, settings -------------------------------------------------------------------------


def test_a_dead_one_is_replayed_under_its_id_and_its_tries_stay_on_record(hub):
    with Receiver(lambda request, number: 410 if number == 0 else 200) as receiver:
        hub.complete(hub.submit(receiver.url()))
        hub.send()
        hub.replay(1)
        assert hub.send().outcomes == {"delivered": 1}
        hub.replay(1)
        hub.send()

    assert len({request.header("webhook-id") for request in receiver.requests}) == 1
    assert [(a.number, a.status_code) for a in hub.attempts()] == [(1, 410), (2, 200), (3, 200)]
    assert hub.statuses() == ["delivered"]


def test_what_waits_or_is_not_there_cannot_be_replayed(sqlite_hub, receiver):
    sqlite_hub.complete(sqlite_hub.submit(receiver.url()))

    with pytest.raises(ReplayRefused, match="tried again by itself"):
        sqlite_hub.replay(1)
    with pytest.raises(ForwardNotFound):
        sqlite_hub.replay(2)


def test_a_replayed_delivery_is_no_new_event_for_the_receivers(sqlite_hub, receiver):
    task_id = sqlite_hub.submit(receiver.url())
    sqlite_hub.complete(task_id)
    sqlite_hub.host.replay(sqlite_hub.host.deliveries(task_id)[-1].id)

    assert len(sqlite_hub.forwards()) == 1


def test_the_host_is_told_of_ends_and_its_errors_are_not_felt(sqlite_hub):
    told: list[tuple[str, str, str]] = []

    def broken(app: Any, **extra: Any) -> None:
        raise RuntimeError("the host's own trouble")

    sqlite_hub.host.connect(forward_finished, broken)
    sqlite_hub.host.connect(
        forward_finished, lambda app, *, forward, outcome, **extra: told.append((forward.url, forward.status, outcome))
    )
    with Receiver(lambda request, number: {"/a": 200, "/b": 410, "/c": 500}[request.path]) as receiver:
        sqlite_hub.complete(sqlite_hub.submit(*(receiver.url(path) for path in ("/a", "/b", "/c"))))
        assert sqlite_hub.send().outcomes == {"delivered": 1, "dead": 1, "waiting": 1}

        assert sorted(told) == [
            (receiver.url("/a"), "delivered", "delivered"),
            (receiver.url("/b"), "dead", "dead"),
        ]


def test_old_finished_ones_go_with_the_history_and_their_tries_too(hub, receiver):
    hub.complete(hub.submit(receiver.url()))
    hub.send()
    hub.complete(hub.submit(receiver.url()))
    hub.host.clock.advance(91 * 86_400)
    hub.complete(hub.submit(receiver.url()))
    hub.send(limit=1)
    with hub.host.app.app_context():
        hub.host.webhook.purge()

    assert [forward.id for forward in hub.forwards()] == [2, 3]
    assert [attempt.forward_id for attempt in hub.attempts()] == [2]


def test_one_that_is_replayed_while_a_purge_is_under_way_stays_with_its_tries(hub, receiver):
    hub.complete(hub.submit(receiver.url()))
    hub.send()
    hub.host.clock.advance(91 * 86_400)
    replayed: list[int] = []

    def replay(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM webhook_forward") and not replayed:
            replayed.append(1)
            hub.replay(1)

    sa.event.listen(hub.host.engine, "before_cursor_execute", replay)
    with hub.host.app.app_context():
        hub.host.webhook.purge()

    assert replayed
    assert hub.statuses() == ["waiting"]
    assert [attempt.number for attempt in hub.attempts()] == [1]


def test_without_a_secret_nothing_can_be_sent_on(hubs, sqlite_url):
    hub = hubs(sqlite_url, WEBHOOK_FORWARD_SECRET=...)

    with pytest.raises(ConfigurationError, match="WEBHOOK_FORWARD_SECRET"):
        hub.submit("https://one.example/")
    hub.host.add_task(forward_to=["https://one.example/"])
    with hub.host.statements() as statements:
        assert hub.send() == ForwardReport()
    assert statements == []


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["ftp://one.example/"], "in target 1, the URL must be an absolute http or https URL"),
        (["https://one.example/", "https://u:p@one.example/"], "in target 2, the URL must not contain a user"),
        ([{"url": "https://one.example/", "evnts": []}], "'evnts' is not a known name; known: url, events"),
        ("https://one.example/", "must be a list of URLs"),
    ],
)
def test_a_bad_target_is_refused_by_submit(sqlite_hub, targets, words):
    with sqlite_hub.host.app.app_context(), pytest.raises(ValueError, match=f"forward_to .*{words}"):
        sqlite_hub.host.webhook.submit(topic="T", forward_to=targets)
    assert sqlite_hub.host.tasks() == []


def test_the_secret_of_the_callbacks_is_never_shared(hubs, sqlite_url):
    with pytest.raises(ConfigurationError, match="could forge callbacks"):
        hubs(sqlite_url, WEBHOOK_FORWARD_SECRET=["another", SECRET])


def test_a_receiver_never_sees_a_token_of_ours(sqlite_hub, receiver):
    task_id = sqlite_hub.submit(receiver.url())
    token = sqlite_hub.host.token(task_id, 1)
    sqlite_hub.host.post_batch([{**completed(task_id), "token": token, "attempt": 1}])
    sqlite_hub.send()

    assert [event["taskId"] for event in events(receiver)] == [task_id]
    assert token.encode() not in receiver.requests[0].raw


def test_the_outbox_does_not_show_in_what_handlers_get(sqlite_hub, receiver):
    """The rows are written before the handlers run, and change nothing for them."""
    seen: list[str] = []
    sqlite_hub.host.connect(delivery_processed, lambda app, *, outcome, **extra: seen.append(outcome))
    sqlite_hub.complete(sqlite_hub.submit(receiver.url()))

    assert seen[-1] == "processed"
    assert sqlite_hub.host.publisher.calls == 1
