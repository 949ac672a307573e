"""Each try of the handlers that failed is kept with its handler, error and traceback; what we answered is kept, too."""

from __future__ import annotations

from time import process_time

import pytest

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.core.redaction import redacted_code
from flask_contenthub_webhook.engine.failed_tries import FailedTry
from flask_contenthub_webhook.engine.handlers import HandlerError
from flask_contenthub_webhook.errors import HandlerFailed
from tests.support.host import SECRET, completed, progress


def fail(host):
    """A task whose completion the handlers fail at; its delivery."""
    task_id = host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id))
    return host.deliveries(task_id)[0].id


def retry(host):
    """Try again what is due by then."""
    host.clock.advance(1000)
    host.retry()


def test_every_failed_try_is_kept_and_the_last_success_forgets_none(host):
    delivery_id = fail(host)
    retry(host)
    host.publisher.broken = False
    retry(host)

    row = host.delivery(delivery_id)

    assert (row.verdict, row.tries, row.error) == ("processed", 3, None)
    assert [entry["number"] for entry in row.failed_tries] == [1, 2]
    for entry in row.failed_tries:
        assert entry["handler"] == "Publisher"
        assert entry["error"] == "Publisher: BrokenHandler: the publisher is broken"
        assert entry["traceback"].endswith("BrokenHandler: the publisher is broken\n")
        assert 'raise BrokenHandler("the publisher is broken")' in entry["traceback"]
        assert "flask_contenthub_webhook/engine" not in entry["traceback"]
        assert entry["ms"] > 0
    assert row.failed_tries[0]["at"] < row.failed_tries[1]["at"]


def test_a_first_success_keeps_nothing_and_takes_no_statement_more(sqlite_host):
    host = sqlite_host
    task_id = host.add_task()

    with host.statements() as statements:
        host.post(task_id, completed(task_id))

    assert [statement.split()[0] for statement in statements if "webhook_deliveries" in statement] == [
        "UPDATE",
        "INSERT",
    ]
    assert host.deliveries()[0].failed_tries is None


def test_what_the_sender_was_answered_is_kept(hosts, sqlite_url):
    host = hosts(sqlite_url)
    task_id = host.add_task()
    statuses = [host.post(task_id, progress(task_id, 10)).status_code]
    delivery_id = fail(host)
    host.publisher.broken = False
    retry(host)
    statuses.append(host.post(task_id, b"{").status_code)

    assert [row.answer_status for row in host.deliveries(task_id)] == statuses == [200, 400]
    assert host.delivery(delivery_id).answer_status == 500
    assert host.replay(delivery_id).verdict == "duplicate"
    assert host.deliveries()[-1].answer_status is None


def test_an_event_for_a_worker_was_answered_202_for_ever(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_PROCESSING="worker")
    task_id = host.add_task()
    host.post(task_id, completed(task_id))
    retry(host)

    row = host.deliveries()[0]
    assert (row.verdict, row.answer_status, row.tries) == ("processed", 202, 1)


def test_secrets_are_left_out_of_what_is_kept(sqlite_host):
    host = sqlite_host

    def leak(app, **extra):
        raise RuntimeError(f"401 for https://x.example/?token=geheim with {SECRET}, Authorization: Bearer abcdef")

    host.connect(task_completed, leak)
    task_id = host.add_task()
    host.post(task_id, completed(task_id))

    row = host.deliveries()[0]
    kept = f"{row.failed_tries} {row.error}"
    assert "RuntimeError: 401 for https://x.example/" in row.error
    for secret in (SECRET, "geheim", "abcdef"):
        assert secret not in kept, secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('connect(host="db", password="hunter2")', 'connect(host="db", password=***)'),
        ("{'api_key': 'geheim', 'model': 'x'}", "{'api_key': ***, 'model': 'x'}"),
        ("secret=hunter2, user=ada", "secret=***, user=ada"),
        ("AuthenticationError: invalid", "AuthenticationError: invalid"),
        ("KeyError: 'token'", "KeyError: 'token'"),
        ("SignatureInvalid: The signature does not match.", "SignatureInvalid: The signature does not match."),
        ("Authorization: Bearer eyJhbGciOi.x.y", "Authorization: Bearer ***"),
    ],
)
def test_literals_beside_secret_names_are_hidden_in_code_and_messages(text, shown):
    assert redacted_code(text) == shown


def test_an_exception_may_do_anything(host):
    class Evil(Exception):
        def __str__(self):
            raise SystemExit(3)

    def fail_badly(app, **extra):
        raise Evil("\0\ud800" * 50_000)

    host.connect(task_completed, fail_badly)
    task_id = host.add_task()

    assert host.post(task_id, completed(task_id)).status_code == 500
    [entry] = host.deliveries()[0].failed_tries
    assert entry["error"].endswith("Evil: (its message cannot be read)")
    assert len(entry["traceback"]) <= 6_000


def test_the_newest_twenty_are_kept(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_RETRY_BACKOFF=[1] * 30)
    delivery_id = fail(host)
    for _ in range(24):
        retry(host)

    assert [entry["number"] for entry in host.delivery(delivery_id).failed_tries] == list(range(6, 26))


def test_an_error_that_repeats_a_whole_body_holds_nobody_up():
    """Secrets are looked for by regular expressions, during which no other thread of the process runs."""
    error = HandlerError("publish")
    error.__cause__ = ValueError(f"password='geheim' in {'a' * 2_000_000}")
    began = process_time()

    failed = FailedTry.of(error, ["geheim-1", "geheim-2"])

    assert process_time() - began < 2
    assert failed.error.startswith("publish: ValueError: password=*** in aaa")


def test_who_replays_is_kept_and_a_failed_replay_says_where_and_why(sqlite_host):
    host = sqlite_host
    delivery_id = fail(host)

    with host.app.app_context(), pytest.raises(HandlerFailed) as failed:
        host.webhook.replay(delivery_id, by="Ada")

    replay = host.delivery(failed.value.delivery_id)
    assert (replay.replay_of, replay.replayed_by) == (delivery_id, "Ada")
    assert failed.value.failure == "Publisher: BrokenHandler: the publisher is broken"
    assert "publisher" not in failed.value.message


def test_the_commands_show_the_tries_and_name_who_replays(sqlite_host):
    delivery_id = fail(sqlite_host)
    runner = sqlite_host.app.test_cli_runner()

    shown = runner.invoke(args=["webhook", "deliveries", "show", str(delivery_id)])
    replayed = runner.invoke(args=["webhook", "deliveries", "replay", str(delivery_id)])

    assert 'raise BrokenHandler("the publisher is broken")' in shown.output
    assert replayed.exit_code == 1
    assert "failed: Publisher: BrokenHandler: the publisher is broken" in replayed.output
    assert sqlite_host.deliveries()[-1].replayed_by.endswith("by flask webhook")
