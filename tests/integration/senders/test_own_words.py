"""Callbacks of services that report in their own words: applied like any other, and only if their sender vouches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_contenthub_webhook.creators import Callback, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorUnreachable, ReplayRefused, SignatureExpired
from tests.support.host import PREFIX, SECRET, Host, completed, signed
from tests.support.own_words import (
    KEY,
    Talker,
    Whisperer,
    project,
    talk,
    talker,
    url_of,
    with_sender,
    with_senders,
    words,
)
from tests.support.submission import DONE, OPEN, query_of, raise_, retry, submit, sweep, with_own_creator

Build = Callable[..., Host]


@pytest.fixture(params=["inline", "worker"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(hosts: Build, database_url: str, mode: str) -> Host:
    return with_senders(hosts, database_url, WEBHOOK_PROCESSING=mode)


@pytest.fixture
def lone(hosts: Build, database_url: str, mode: str) -> Host:
    return with_sender(hosts, database_url, WEBHOOK_PROCESSING=mode)


def submitted(host: Host, creator: str | None = "talk") -> tuple[str, str]:
    """Submit a task; return its id and the service's name of its job."""
    task_id = submit(host, **({} if creator is None else {"creator": creator}))
    sweep(host)
    return task_id, host.task(task_id).creator_task_id


def settle(host: Host) -> None:
    """Let a worker apply what was accepted."""
    host.retry()


def outcome(host: Host, answer: Any) -> tuple[int, str]:
    """The verdict in the end, whether the request or a worker has found it."""
    if answer.status_code not in {200, 202}:
        return answer.status_code, answer.json["error"]["code"]
    settle(host)
    return 200, host.delivery(answer.json["delivery_id"]).verdict


class TestTheUrlOfATask:
    def test_it_carries_the_senders_name(self, host: Host) -> None:
        task_id, _ = submitted(host)
        query = query_of(host.task(task_id).callback_url)
        assert (query["sender"], query["attempt"], len(query["token"])) == (["talk"], ["1"], 1)

    def test_an_only_sender_is_called_creator(self, lone: Host) -> None:
        task_id, job = submitted(lone, None)
        assert query_of(lone.task(task_id).callback_url)["sender"] == ["creator"]
        assert outcome(lone, talk(lone, url_of(lone, task_id), words(job))) == (200, "processed")

    def test_a_retry_keeps_it(self, host: Host) -> None:
        task_id, job = submitted(host)
        path = url_of(host, task_id)
        answer = talk(host, path, words(job, "failed", error={"message": "no"}))
        assert outcome(host, answer) == (200, "processed")
        query = query_of(host.task(task_id).callback_url)
        assert (query["sender"], query["attempt"]) == (["talk"], ["2"])
        assert query["token"] != query_of(path)["token"]

    def test_a_token_without_the_name_is_not_believed(self, host: Host) -> None:
        """Who has the URL could otherwise speak our own format, which nobody signs."""
        task_id, job = submitted(host)
        path = url_of(host, task_id).replace("sender=talk&", "")
        answer: Any = host.post(task_id, completed(job), path=path)
        assert (answer.status_code, answer.json["error"]["code"]) == (401, "signature_invalid")

    def test_nor_is_one_with_another_name(self, host: Host) -> None:
        task_id, job = submitted(host)
        answer = talk(host, url_of(host, task_id).replace("sender=talk", "sender=other"), words(job), key=b"any")
        assert (answer.status_code, answer.json["error"]["code"]) == (401, "signature_invalid")
        assert talker(host, "other").verified == []


class TestApplying:
    @pytest.mark.parametrize("where", ["task", "project"])
    def test_completed(self, host: Host, where: str) -> None:
        task_id, job = submitted(host)
        path = url_of(host, task_id) if where == "task" else project()
        assert outcome(host, talk(host, path, words(job))) == (200, "processed")
        assert (host.task(task_id).status, host.contents(task_id)) == ("completed", ["spoken"])

    @pytest.mark.parametrize("where", ["task", "project"])
    def test_failed_with_the_services_words(self, host: Host, where: str) -> None:
        task_id, job = submitted(host)
        path = url_of(host, task_id) if where == "task" else project()
        error = {"message": "out of ink", "code": "INK", "details": {"retryable": False}}
        assert outcome(host, talk(host, path, words(job, "failed", error=error))) == (200, "processed")
        task = host.task(task_id)
        assert (task.status, task.error_code, task.error_message) == ("failed", "INK", "out of ink")

    def test_progress(self, host: Host) -> None:
        task_id, job = submitted(host)
        assert outcome(host, talk(host, project(), words(job, "open", progress={"percentage": 40}))) == (
            200,
            "processed",
        )
        assert (host.task(task_id).status, host.task(task_id).progress_percentage) == ("processing", 40)

    def test_a_start_without_progress(self, host: Host) -> None:
        task_id, job = submitted(host)
        assert outcome(host, talk(host, project(), words(job, "open"))) == (200, "processed")
        assert host.task(task_id).status == "processing"

    def test_cancelled_at_the_service(self, host: Host) -> None:
        task_id, job = submitted(host)
        assert outcome(host, talk(host, project(), words(job, "cancelled"))) == (200, "processed")
        assert (host.task(task_id).status, host.task(task_id).error_code) == ("failed", "CANCELLED_BY_CREATOR")

    def test_the_task_may_be_named_by_us(self, host: Host) -> None:
        task_id, _ = submitted(host)
        assert outcome(host, talk(host, project(), words(None, task=task_id))) == (200, "processed")
        assert host.task(task_id).status == "completed"

    def test_a_result_that_is_missing_is_fetched(self, host: Host) -> None:
        task_id, job = submitted(host)
        talker(host).known[job] = DONE
        assert outcome(host, talk(host, project(), words(job, result={}))) == (200, "processed")
        assert host.contents(task_id) == ["early"]

    def test_a_result_that_cannot_be_used_fails_the_task(self, host: Host) -> None:
        task_id, job = submitted(host)
        said = words(job, "failed", error={"reason": "no message"})
        assert outcome(host, talk(host, project(), said)) == (200, "processed")
        assert (host.task(task_id).status, host.task(task_id).error_code) == ("failed", "INVALID_RESULT")

    def test_the_history_has_the_raw_body_the_sender_and_the_id(self, host: Host) -> None:
        task_id, job = submitted(host)
        body = b'{ "job":"%s", "state":"completed","result":{"content":"spoken"}}' % job.encode()
        answer = talk(host, project(), body, message_id="msg 1", headers={"Authorization": "Bearer abc"})
        settle(host)
        row = host.delivery(answer.json["delivery_id"])
        assert (row.body, row.scheme, row.message_id, row.source) == (body, "talk", "msg 1", "webhook")
        assert (row.task_id, row.event, row.attempt) == (task_id, "completed", 1 if row.attempt else None)
        assert row.headers["Authorization"] == "[redacted]"

    def test_the_creator_reads_what_the_history_keeps(self, host: Host) -> None:
        _, job = submitted(host)
        talk(host, project() + "?a=1", words(job), headers={"Authorization": "Bearer abc"})
        verified, read = talker(host).verified[0], talker(host).read[0]
        assert (verified.query, verified.headers["authorization"]) == ({"a": "1"}, "Bearer abc")
        assert (read.query, read.headers["AUTHORIZATION"], read.body) == ({}, "[redacted]", verified.body)

    def test_no_connection_is_held_while_the_creator_reads(self, host: Host) -> None:
        task_id, job = submitted(host)
        talk(host, url_of(host, task_id), words(job))
        settle(host)
        assert set(talker(host).connections_in_use) == {0}


class TestOnce:
    @pytest.mark.parametrize("where", ["task", "project"])
    def test_one_message_has_one_effect(self, host: Host, where: str) -> None:
        task_id, job = submitted(host)
        path = url_of(host, task_id) if where == "task" else project()
        said = words(job, "failed", error={"message": "no"})
        first = outcome(host, talk(host, path, said, message_id="m1"))
        second = outcome(host, talk(host, path, said, message_id="m1"))
        assert (first, second) == ((200, "processed"), (200, "stale"))  # the attempt tells
        assert host.task(task_id).attempt == 2

    def test_progress_once(self, host: Host) -> None:
        _, job = submitted(host)
        said = words(job, "open", progress={"percentage": 5})
        assert outcome(host, talk(host, project(), said, message_id="m1")) == (200, "processed")
        said = words(job, "open", progress={"percentage": 6})
        assert outcome(host, talk(host, project(), said, message_id="m1")) == (200, "duplicate")

    def test_a_message_without_an_id_is_known_by_its_content(self, hosts: Build, database_url: str, mode: str) -> None:
        class Nameless(Talker):
            def verify_callback(self, callback: Callback) -> None:
                super().verify_callback(callback)

        host = with_sender(hosts, database_url, Nameless, WEBHOOK_PROCESSING=mode)
        task_id, job = submitted(host, None)
        said = {"state": "failed", "job": job, "error": {"message": "no"}}
        first = outcome(host, talk(host, project("creator"), said))
        second = outcome(host, talk(host, project("creator"), dict(reversed(said.items()))))
        assert first == (200, "processed")
        assert second[1] in {"duplicate", "stale"}
        assert host.task(task_id).attempt == 2

    def test_completed_twice(self, host: Host) -> None:
        task_id, job = submitted(host)
        assert outcome(host, talk(host, project(), words(job))) == (200, "processed")
        assert outcome(host, talk(host, project(), words(job))) == (200, "duplicate")
        assert host.contents(task_id) == ["spoken"]

    @pytest.mark.parametrize("message_id", ["x" * 300, "ключ", "a\x7fb"])
    def test_an_id_that_no_database_keeps_is_still_one(self, hosts: Build, database_url: str, message_id: str) -> None:
        class Fixed(Talker):
            def verify_callback(self, callback: Callback) -> str:
                super().verify_callback(callback)
                return message_id

        host = with_sender(hosts, database_url, Fixed)
        _, job = submitted(host, None)
        said = words(job, "open", progress={"percentage": 5})
        assert outcome(host, talk(host, project("creator"), said)) == (200, "processed")
        assert outcome(host, talk(host, project("creator"), said)) == (200, "duplicate")


class TestAttempts:
    @pytest.mark.parametrize("where", ["task", "project"])
    def test_an_old_attempts_failure_fails_no_newer_one(self, host: Host, where: str) -> None:
        task_id, old = submitted(host)
        path = url_of(host, task_id) if where == "task" else project()
        talk(host, path, words(old, "failed", error={"message": "first"}))
        settle(host)
        host.clock.advance(3600)
        sweep(host)
        assert host.task(task_id).status == "submitted"
        again = words(old, "failed", error={"message": "again"})
        assert outcome(host, talk(host, path, again)) == (200, "stale")
        assert (host.task(task_id).attempt, host.task(task_id).status) == (2, "submitted")

    def test_an_old_attempts_completion_still_counts(self, host: Host) -> None:
        task_id, old = submitted(host)
        talk(host, project(), words(old, "failed", error={"message": "first"}))
        settle(host)
        host.clock.advance(3600)
        sweep(host)
        assert outcome(host, talk(host, project(), words(old))) == (200, "processed")
        assert host.task(task_id).status == "completed"

    def test_an_old_attempts_thin_completion_that_names_no_job_is_fetched_from_its_own(self, host: Host) -> None:
        task_id, old = submitted(host)
        path = url_of(host, task_id)
        talk(host, path, words(old, "failed", error={"message": "first"}))
        settle(host)
        host.clock.advance(3600)
        sweep(host)
        done = Report(state=RemoteState.COMPLETED, result={"content": "of the first"})
        talker(host).known = {old: done, host.task(task_id).creator_task_id: OPEN}
        assert outcome(host, talk(host, path, words(None, result=None))) == (200, "processed")
        assert host.contents(task_id) == ["of the first"]

    def test_an_unknown_job_of_a_known_task_is_not_the_current_one(self, host: Host) -> None:
        """Its submission was not answered, and another job has been accepted since."""
        task_id, _ = submitted(host)
        said = words("a job of nobody", "failed", task=task_id, error={"message": "no"})
        assert outcome(host, talk(host, project(), said)) == (200, "stale")
        assert host.task(task_id).status == "submitted"

    def test_an_attempt_that_the_service_has_kept_counts(self, host: Host) -> None:
        task_id, old = submitted(host)
        talk(host, project(), words(old, "failed", error={"message": "first"}))
        settle(host)
        host.clock.advance(3600)
        sweep(host)
        said = words(None, "failed", task=task_id, attempt=1, error={"message": "no"})
        assert outcome(host, talk(host, project(), said)) == (200, "stale")


class TestNotBelieved:
    @pytest.mark.parametrize("where", ["task", "project"])
    @pytest.mark.parametrize("key", [None, b"a stranger's"])
    def test_a_forged_one(self, host: Host, where: str, key: bytes | None) -> None:
        task_id, job = submitted(host)
        path = url_of(host, task_id) if where == "task" else project()
        answer = talk(host, path, words(job), key=key)
        assert (answer.status_code, answer.json["error"]["code"]) == (401, "signature_invalid")
        assert "expected" not in answer.text
        assert talker(host).read == []
        host.state.refusals.flush()
        [row] = [row for row in host.deliveries() if row.verdict == "rejected"]
        assert (row.error, row.scheme) == ("signature_invalid", None)
        assert "expected" not in row.reason
        assert host.task(task_id).status == "submitted"

    @pytest.mark.parametrize("said", [True, False, 1, b"id", object(), ["id"]])
    def test_what_is_no_id_lets_nothing_in(self, lone: Host, said: object) -> None:
        _, job = submitted(lone, None)
        talker(lone).on_verify = lambda _: said
        assert talk(lone, project("creator"), words(job)).status_code == 401

    @pytest.mark.parametrize(
        "error", [KeyError("x"), SystemExit(0), GeneratorExit(), RecursionError(), BaseException()]
    )
    def test_a_bug_lets_nothing_in(self, lone: Host, error: BaseException) -> None:
        _, job = submitted(lone, None)
        talker(lone).on_verify = lambda _: raise_(error)
        assert talk(lone, project("creator"), words(job)).status_code == 401

    def test_one_that_cannot_be_verified_now_is_sent_again(self, lone: Host) -> None:
        task_id, job = submitted(lone, None)
        talker(lone).on_verify = lambda _: raise_(CreatorUnreachable("no keys"))
        for path in (project("creator"), url_of(lone, task_id)):
            answer = talk(lone, path, words(job))
            assert (answer.status_code, answer.json["error"]["code"]) == (503, "event_unreadable")
        assert lone.task(task_id).status == "submitted"

    def test_a_refusal_in_our_own_words_is_passed_on(self, lone: Host) -> None:
        _, job = submitted(lone, None)
        talker(lone).on_verify = lambda _: raise_(SignatureExpired("too old"))
        answer = talk(lone, project("creator"), words(job))
        assert (answer.status_code, answer.json["error"]) == (401, {"code": "signature_expired", "message": "too old"})

    def test_nothing_touches_the_database_before_it_is_believed(self, host: Host) -> None:
        task_id, job = submitted(host)
        paths = (url_of(host, task_id), project(), project("nobody"))
        with host.statements() as seen:
            for path in paths:
                talk(host, path, words(job), key=b"a stranger's")
        assert not [statement for statement in seen if "content_generation_tasks" in statement]

    @pytest.mark.parametrize("name", ["nobody", "hub", "url", "Talk", "creator%00"])
    def test_an_unknown_sender(self, host: Host, name: str) -> None:
        answer = talk(host, project(name), words("j"))
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "unknown_sender")

    def test_one_whose_callbacks_are_off(self, hosts: Build, database_url: str) -> None:
        class Quiet(Talker):
            callbacks = False

        host = with_sender(hosts, database_url, Quiet)
        task_id, job = submitted(host, None)
        assert host.task(task_id).callback_url is None
        answer = talk(host, project("creator"), words(job))
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "webhook_disabled")


class TestTheTokenAlone:
    @pytest.fixture
    def host(self, hosts: Build, database_url: str, mode: str) -> Host:
        return with_sender(hosts, database_url, Whisperer, WEBHOOK_PROCESSING=mode)

    def test_it_is_believed_at_the_tasks_url(self, host: Host) -> None:
        task_id, job = submitted(host, None)
        assert outcome(host, talk(host, url_of(host, task_id), words(job), key=None)) == (200, "processed")

    @pytest.mark.parametrize("change", [("token=", "token=x"), ("token=", "no="), ("attempt=1", "attempt=2")])
    def test_and_nothing_else_is(self, host: Host, change: tuple[str, str]) -> None:
        task_id, job = submitted(host, None)
        answer = talk(host, url_of(host, task_id).replace(*change), words(job))
        assert answer.status_code in {401, 403}
        assert talker(host).read == []

    @pytest.fixture
    def lax(self, hosts: Build, database_url: str, mode: str) -> Host:
        """A host that requires no signatures."""
        return with_sender(hosts, database_url, Whisperer, WEBHOOK_PROCESSING=mode, WEBHOOK_REQUIRE_SIGNATURE=False)

    def test_it_is_needed_even_where_no_signature_is_required(self, lax: Host) -> None:
        task_id, job = submitted(lax, None)
        path = url_of(lax, task_id)
        answer = talk(lax, path.partition("&token")[0], words(job), key=None)
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "signature_missing")
        assert (talker(lax).read, lax.task(task_id).status) == ([], "submitted")
        assert outcome(lax, talk(lax, path, words(job), key=None)) == (200, "processed")

    def test_the_refusals_of_strangers_are_counted(self, lax: Host) -> None:
        for number in range(20):
            talk(lax, f"{PREFIX}/callback/nothing-{number}?sender=creator", words("x"), key=None)
        (row,) = lax.deliveries()
        assert (row.verdict, row.error, row.scheme) == ("rejected", "signature_missing", None)

    def test_so_they_are_where_there_is_no_secret(self, hosts: Build, sqlite_url: str) -> None:
        host = with_sender(hosts, sqlite_url, Whisperer, WEBHOOK_SECRET_KEY=..., WEBHOOK_REQUIRE_SIGNATURE=False)
        for number in range(20):
            talk(host, f"{PREFIX}/callback/nothing-{number}?sender=creator", words("x"), key=None)
        (row,) = host.deliveries()
        assert (row.verdict, row.error, row.scheme) == ("rejected", "task_not_found", None)
        task_id, job = submitted(host, None)
        assert outcome(host, talk(host, url_of(host, task_id), words(job), key=None)) == (200, "processed")

    def test_a_refusal_with_the_token_has_a_row_of_its_own(self, host: Host) -> None:
        task_id, _ = submitted(host, None)
        talk(host, url_of(host, task_id), words(None, task="another"), key=None)
        row = host.deliveries(task_id)[-1]
        assert (row.verdict, row.error, row.scheme) == ("rejected", "task_mismatch", "creator")

    def test_there_is_no_url_for_all_its_jobs(self, host: Host) -> None:
        _, job = submitted(host, None)
        answer = talk(host, project("creator"), words(job))
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "signature_missing")


class TestOthersTasks:
    def test_a_job_of_another_sender_is_none_of_ours(self, host: Host) -> None:
        task_id, job = submitted(host, "other")
        for said in (words(job), words(job, task=task_id), words(None, task=task_id)):
            answer = talk(host, project(), said)
            assert (answer.status_code, answer.json["outcome"]) == (200, "ignored")
            row = host.delivery(answer.json["delivery_id"])
            assert (row.verdict, row.scheme, row.task_id) == ("ignored", "talk", None)
        assert host.task(task_id).status == "submitted"

    def test_nor_is_a_job_of_another_application(self, host: Host) -> None:
        answer = talk(host, project(), words("somebody else's"))
        assert (answer.status_code, answer.json["outcome"], answer.json["details"]["status"]) == (200, "ignored", None)

    def test_a_task_in_our_own_format_is_not_settled_in_own_words(self, host: Host) -> None:
        task_id, job = submitted(host, "hub")
        assert talk(host, project(), words(job, task=task_id)).json["outcome"] == "ignored"
        assert host.task(task_id).status == "submitted"

    @pytest.mark.parametrize("batch", [False, True])
    @pytest.mark.parametrize("scheme", ["contenthub", "standard"])
    def test_a_task_in_own_words_is_not_settled_in_our_own_format(self, host: Host, scheme: str, batch: bool) -> None:
        task_id, job = submitted(host)
        if batch:
            batched: Any = host.post_batch([completed(job)], scheme=scheme)
            [result] = batched.json["results"]
            refused = (result["status"], result["error"]["code"])
        else:
            answer: Any = host.post_signed(task_id, completed(task_id), scheme)
            refused = (answer.status_code, answer.json["error"]["code"])
        settle(host)
        assert refused == (409, "task_mismatch")
        assert host.task(task_id).status == "submitted"
        assert [(row.verdict, row.scheme) for row in host.deliveries() if row.source == "webhook"] == [
            ("rejected", scheme)
        ]

    def test_nor_by_a_replay_of_what_was_refused(self, host: Host) -> None:
        task_id, _ = submitted(host)
        host.post_signed(task_id, completed(task_id), "contenthub")
        [row] = [row for row in host.deliveries(task_id) if row.verdict == "rejected"]
        with pytest.raises(Exception, match="reports in its own words"):
            host.replay(row.id)
        assert host.task(task_id).status == "submitted"

    def test_a_job_of_another_task_at_this_tasks_url(self, host: Host) -> None:
        (task_id, _), (other_id, job) = submitted(host), submitted(host)
        answer = talk(host, url_of(host, task_id), words(job))
        assert (answer.status_code, answer.json["error"]["code"]) == (409, "task_mismatch")
        assert [host.task(each).status for each in (task_id, other_id)] == ["submitted", "submitted"]

    def test_without_the_token_the_job_decides(self, host: Host) -> None:
        (task_id, mine), (_, job) = submitted(host), submitted(host)
        path = url_of(host, task_id).partition("&token")[0]
        assert talk(host, path, words(job)).status_code == 409
        assert talk(host, path, words("unknown")).status_code == 409
        assert outcome(host, talk(host, path, words(mine))) == (200, "processed")

    def test_gossip_is_ignored_and_recorded(self, host: Host) -> None:
        task_id, job = submitted(host)
        answers = [talk(host, path, words(job, "gossip")) for path in (url_of(host, task_id), project())]
        assert [(answer.status_code, answer.json["outcome"]) for answer in answers] == [(200, "ignored")] * 2
        assert [host.delivery(answer.json["delivery_id"]).task_id for answer in answers] == [task_id, None]

    def test_an_unknown_task(self, host: Host) -> None:
        _, job = submitted(host)
        with host.app.app_context():
            path = host.state.settings.callback_urls.build("gone", 1, sender="talk").partition("example")[2]
        answer = talk(host, path, words(job))
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "task_not_found")


class TestKept:
    def test_one_that_cannot_be_read_now_is_tried_again(self, host: Host) -> None:
        task_id, job = submitted(host)
        talker(host).on_read = lambda _: raise_(CreatorUnreachable("down"))
        answer = talk(host, url_of(host, task_id), words(job))
        assert (answer.status_code, answer.json["outcome"]) == (202, "queued")
        host.clock.advance(60)
        settle(host)
        row = host.delivery(answer.json["delivery_id"])
        assert (row.verdict, row.error, row.tries) == ("failed", "down", 1)
        talker(host).on_read = lambda _: None
        host.clock.advance(120)
        settle(host)
        row = host.delivery(row.id)
        assert (row.verdict, row.event, row.attempt or 1) == ("processed", "completed", 1)
        assert host.contents(task_id) == ["spoken"]

    def test_where_no_task_is_known_the_service_sends_it_again(self, host: Host) -> None:
        task_id, job = submitted(host)
        talker(host).on_read = lambda _: raise_(CreatorUnreachable("down"))
        answer = talk(host, project(), words(job))
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "event_unreadable")
        assert int(answer.headers["Retry-After"]) > 0
        talker(host).on_read = lambda _: None
        assert outcome(host, talk(host, project(), words(job))) == (200, "processed")
        assert host.task(task_id).status == "completed"

    def test_nor_without_the_token_as_no_job_is_known_to_be_the_tasks(self, host: Host) -> None:
        task_id, mine = submitted(host)
        path = url_of(host, task_id).partition("&token")[0]
        talker(host).on_read = lambda _: raise_(CreatorUnreachable("down"))
        for job in ("of somebody else", mine):
            answer = talk(host, path, words(job))
            assert (answer.status_code, answer.json["error"]["code"]) == (503, "event_unreadable")
        talker(host).on_read = lambda _: None
        host.clock.advance(120)
        settle(host)
        assert (host.task(task_id).status, host.contents(task_id)) == ("submitted", [])
        assert talk(host, path, words("of somebody else")).status_code == 409
        assert outcome(host, talk(host, path, words(mine))) == (200, "processed")

    def test_a_bug_of_the_creator_loses_nothing(self, host: Host) -> None:
        task_id, job = submitted(host)
        talker(host).on_read = lambda _: raise_(KeyError("job"))
        answer = talk(host, url_of(host, task_id), words(job))
        assert answer.status_code == 202
        for _ in range(5):
            host.clock.advance(3600)
            settle(host)
        assert host.delivery(answer.json["delivery_id"]).verdict == "dead"
        talker(host).on_read = lambda _: None
        assert host.replay(answer.json["delivery_id"]).verdict == "processed"
        assert host.contents(task_id) == ["spoken"]

    def test_what_turns_out_to_be_gossip_is_ignored(self, host: Host) -> None:
        task_id, job = submitted(host)
        talker(host).on_read = lambda _: raise_(CreatorUnreachable("down"))
        answer = talk(host, url_of(host, task_id), words(job, "gossip"))
        talker(host).on_read = lambda _: None
        host.clock.advance(120)
        settle(host)
        assert host.delivery(answer.json["delivery_id"]).verdict == "ignored"

    def test_an_event_before_the_answer_to_the_submission_is_sent_again(self, host: Host) -> None:
        answers: list[Any] = []
        creator = talker(host)
        accept = creator.on_submit

        def report_first(job: Any) -> Any:
            answers.append(talk(host, project(), words(creator.name_of(job))))
            return accept(job)

        creator.on_submit = report_first
        task_id, job = submitted(host)
        [answer] = answers
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "event_unreadable")
        assert outcome(host, talk(host, project(), words(job))) == (200, "processed")
        assert host.contents(task_id) == ["spoken"]

    def test_but_not_for_ever(self, host: Host) -> None:
        """A busy application is always submitting something; another one's events must not be sent again for that."""
        answers: list[tuple[int, str]] = []
        creator = talker(host)
        accept = creator.on_submit

        def hear_of_others(job: Any) -> Any:
            answers.extend(outcome(host, talk(host, project(), words("somebody else's"))) for _ in range(4))
            return accept(job)

        creator.on_submit = hear_of_others
        submitted(host)
        assert answers == [(503, "event_unreadable")] * 3 + [(200, "ignored")]

    @pytest.mark.parametrize("said", [{}, {"task": None}])
    def test_one_that_names_nothing_is_refused(self, host: Host, said: dict[str, Any]) -> None:
        answer = talk(host, project(), words(None, **said))
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "invalid_payload")


class TestReplay:
    def test_it_is_translated_again_from_the_raw_body(self, host: Host) -> None:
        task_id, job = submitted(host)
        error = {"message": "no", "details": {"retryable": False}}
        answer = talk(host, project(), words(job, "failed", error=error))
        settle(host)
        retry(host, task_id)
        before = len(talker(host).read)
        replayed = host.replay(answer.json["delivery_id"])
        assert replayed.verdict in {"stale", "duplicate"}
        assert len(talker(host).read) == before + 1

    def test_what_was_ignored_can_be_replayed_once_the_job_is_known(self, host: Host) -> None:
        answer = talk(host, project(), words("late name"))
        task_id = host.add_task(creator_name="talk", creator_task_id="late name")
        assert host.replay(answer.json["delivery_id"]).verdict == "processed"
        row = host.deliveries(task_id)[-1]
        assert (row.source, row.scheme, row.replay_of) == ("replay", "talk", answer.json["delivery_id"])

    def test_nothing_vouches_for_the_task_of_what_was_ignored_without_the_token(self, host: Host) -> None:
        task_id, _ = submitted(host)
        path = url_of(host, task_id).partition("&token")[0]
        talker(host).read_callback = lambda _: None  # type: ignore[method-assign,assignment]
        answer = talk(host, path, words("of somebody else"))
        assert (answer.json["outcome"], answer.json["details"]["task_id"]) == ("ignored", task_id)
        del talker(host).read_callback
        with pytest.raises(ReplayRefused, match="no job of this application"):
            host.replay(answer.json["delivery_id"])
        assert host.task(task_id).status == "submitted"

    def test_a_failing_handler_is_tried_again(self, host: Host) -> None:
        task_id, job = submitted(host)
        host.publisher.broken = True
        talk(host, project(), words(job))
        settle(host)
        host.publisher.broken = False
        host.clock.advance(120)
        settle(host)
        assert host.contents(task_id) == ["spoken"]

    def test_of_a_sender_that_is_gone(self, host: Host) -> None:
        _, job = submitted(host)
        answer = talk(host, project(), words(job))
        settle(host)
        host.state.creator = talker(host, "other")
        with pytest.raises(Exception, match="in the words of talk, and no such creator"):
            host.replay(answer.json["delivery_id"])


def test_a_host_without_senders_has_no_such_urls(hosts: Build, sqlite_url: str) -> None:
    host = hosts(sqlite_url)
    assert talk(host, project(), words("j"), key=KEY).status_code == 404
    assert host.app.test_client().get(project()).status_code == 405


def test_the_same_secret_verifies_nothing_in_own_words(hosts: Build, sqlite_url: str) -> None:
    host = with_senders(hosts, sqlite_url)
    _, job = submitted(host)
    body = b'{"job":"%s","state":"completed"}' % job.encode()
    assert (
        talk(
            host, project(), body, key=None, headers=signed(body, "standard", host.clock.now, secret=SECRET)
        ).status_code
        == 401
    )


def test_a_parameter_of_the_hosts_that_is_called_sender_stays_its_own(hosts: Build, sqlite_url: str) -> None:
    host = with_own_creator(hosts(sqlite_url, WEBHOOK_SUBMIT_THREADS=0))
    task_id = submit(host, callback_url="https://gateway.example/in/{task_id}?sender=press")
    query = query_of(host.task(task_id).callback_url)
    assert query["sender"] == ["press"]
    path = f"{host.path(task_id, 1)}&sender=press"
    assert query["token"][0] in path
    assert host.post(task_id, completed(task_id), path=path).status_code == 200
