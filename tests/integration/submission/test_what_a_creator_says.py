"""What a creator says and raises is checked before it is believed; its bugs are shown as its bugs."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any, NoReturn

import pytest
from flask import current_app

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear
from tests.support.host import Host, completed, make_host
from tests.support.processes import wait_until
from tests.support.submission import BASE, OPEN, cancel, own, raise_, reconcile, submit, sweep, with_own_creator


class TestNames:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("x" * 256, "256 characters"),
            ("press\0seven", "NUL"),
            ("press\ud800", "surrogate"),
            ("", "empty"),
            (7, "int"),
            (b"press", "bytes"),
        ],
        ids=["long", "NUL", "surrogate", "empty", "number", "bytes"],
    )
    def test_that_cannot_be_kept_fail_the_task_once_with_words(self, hub, name, words):
        own(hub).on_submit = lambda _: Report(state=RemoteState.OPEN, creator_task_id=name)
        task_id = submit(hub)
        for _ in range(3):
            sweep(hub)
            reconcile(hub)
            hub.clock.advance(700)
        task = hub.task(task_id)
        assert (task.status, task.error_code, len(own(hub).jobs)) == ("failed", "INVALID_JOB_NAME", 1)
        assert words in task.error_message
        assert own(hub).cancelled == ([name] if isinstance(name, str) else [])

    def test_of_255_characters_in_any_script_are_kept(self, hub):
        name = "新" * 254 + "🖨"
        own(hub).on_submit = lambda _: Report(state=RemoteState.OPEN, creator_task_id=name)
        task_id = submit(hub)
        sweep(hub)
        assert hub.task(task_id).creator_task_id == name
        assert hub.post_signed(task_id, completed(name), "contenthub").status_code == 200


class TestWords:
    @pytest.mark.parametrize("unfit", ["nul \0", "half \ud800"], ids=["NUL", "surrogate"])
    def test_of_a_refusal_are_kept_as_far_as_they_can_be(self, hub, unfit):
        refusal = CreatorRefused(unfit, reason=unfit, details={unfit: unfit})
        own(hub).on_submit = lambda _: raise_(refusal)
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"refused": 1}
        task = hub.task(task_id)
        assert (task.status, task.error_message) == ("failed", unfit[:-1] + "\ufffd")
        assert task.error_code == unfit[:-1] + "\ufffd"

    def test_that_are_not_json_or_not_text_are_left_out(self, hub):
        refusal = CreatorRefused("no", details={"when": {1, 2}})
        refusal.reason, refusal.message = 17, ValueError("no")  # type: ignore[assignment]
        own(hub).on_submit = lambda _: raise_(refusal)
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"refused": 1}
        assert (hub.task(task_id).error_code, hub.task(task_id).error_message) == ("17", "no")

    @pytest.mark.parametrize("unfit", ["nul \0", "half \ud800"], ids=["NUL", "surrogate"])
    def test_of_a_failure_in_a_poll_fail_the_task_once(self, hub, unfit):
        task_id = submit(hub)
        sweep(hub)
        error = {"message": unfit, "code": unfit, "type": unfit}
        own(hub).known[hub.task(task_id).creator_task_id] = Report(state=RemoteState.FAILED, error=error)
        hub.clock.advance(130)
        reconcile(hub)
        assert hub.task(task_id).status == "failed"
        json.loads(hub.deliveries(task_id)[-1].body)

    def test_for_a_state_that_nobody_knows_are_no_answer(self, hub):
        said: Any = "baking"
        own(hub).on_submit = lambda _: Report(state=said)
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"unclear": 1}
        assert "baking" in hub.deliveries(task_id)[0].reason

    def test_for_a_state_are_understood_as_plain_text(self, hub):
        said: Any = {"state": "completed", "raw": "{}"}
        own(hub).on_submit = lambda _: Report(result={"content": "# T"}, **said)
        task_id = submit(hub)
        sweep(hub)
        assert hub.contents(task_id) == ["# T"]

    def test_of_an_unclear_answer_are_in_the_history(self, hub):
        own(hub).on_submit = lambda _: raise_(CreatorUnclear("cut \0 off"))
        task_id = submit(hub)
        sweep(hub)
        assert "cut \ufffd off" in hub.deliveries(task_id)[0].reason


class TestBugs:
    @pytest.mark.parametrize("bug", [KeyError("id"), RuntimeError("broken"), TypeError(), SystemExit(3)], ids=repr)
    def test_in_submit_are_shown_in_the_task_the_history_and_the_log(self, hub, caplog, bug):
        own(hub).on_submit = lambda _: raise_(bug)
        task_id = submit(hub)
        with caplog.at_level(logging.ERROR):
            assert sweep(hub).outcomes == {"unclear": 1}
        task = hub.task(task_id)
        words = f"OwnCreator.submit raised {type(bug).__name__}"
        assert (task.status, task.error_code) == ("submitted", "BUG_IN_CREATOR")
        assert words in task.error_message
        assert words in hub.deliveries(task_id)[0].reason
        assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [bug]
        sweep(hub)
        assert len(own(hub).jobs) == 1  # it may have been raised after the call

    def test_that_return_something_else_are_bugs_as_well(self, hub):
        own(hub).on_submit = lambda _: {"id": 7}  # type: ignore[assignment, return-value]
        task_id = submit(hub)
        sweep(hub)
        assert "dict instead of a report" in hub.task(task_id).error_message

    def test_in_status_are_shown_in_the_task(self, hub, monkeypatch):
        task_id = submit(hub)
        sweep(hub)
        monkeypatch.setattr(own(hub), "statuses", lambda *_, **__: {})
        monkeypatch.setattr(own(hub), "status", lambda _: raise_(KeyError("state")))
        hub.clock.advance(130)
        assert reconcile(hub).errors == 1
        task = hub.task(task_id)
        assert (task.status, task.error_code) == ("submitted", "BUG_IN_CREATOR")
        assert "OwnCreator.status raised KeyError" in task.error_message
        assert hub.post(task_id, completed(task_id), attempt=1).status_code == 200
        assert (hub.task(task_id).error_code, hub.task(task_id).error_message) == (None, None)

    def test_in_status_are_not_shown_in_a_task_that_was_settled_meanwhile(self, hub, monkeypatch):
        task_id = submit(hub)
        sweep(hub)

        def settle_and_raise(_: str) -> NoReturn:
            assert hub.post(task_id, completed(task_id), attempt=1).status_code == 200
            raise KeyError("state")

        monkeypatch.setattr(own(hub), "statuses", lambda *_, **__: {})
        monkeypatch.setattr(own(hub), "status", settle_and_raise)
        hub.clock.advance(130)
        assert reconcile(hub).errors == 1
        task = hub.task(task_id)
        assert (task.status, task.error_code, task.error_message) == ("completed", None, None)

    def test_that_are_mended_are_forgotten(self, hub, monkeypatch):
        task_id = submit(hub)
        sweep(hub)
        with monkeypatch.context() as broken:
            broken.setattr(own(hub), "statuses", lambda *_, **__: {})
            broken.setattr(own(hub), "status", lambda _: raise_(KeyError("state")))
            hub.clock.advance(130)
            reconcile(hub)
        own(hub).known[hub.task(task_id).creator_task_id] = OPEN
        hub.clock.advance(130)
        assert reconcile(hub).still_open == 1
        assert (hub.task(task_id).error_code, hub.task(task_id).error_message) == (None, None)


class TestTheApplicationContext:
    def test_is_there_in_every_call(self, hosts, database_url):
        """In the threads of a submission, of a cancellation, of a sweep, of the poller, of a thin callback."""
        seen: list[tuple[str, str]] = []

        class ContextCreator:
            def submit(self, job: Job, *, wait: float) -> Report:
                seen.append(("submit", current_app.name))
                return OPEN

            def status(self, creator_task_id: str) -> Report:
                seen.append(("status", current_app.name))
                return Report(state=RemoteState.COMPLETED)

            def statuses(self, creator_task_ids: Any, *, since: Any = None) -> Any:
                seen.append(("statuses", current_app.name))
                return {}

            def result(self, creator_task_id: str) -> Report:
                seen.append(("result", current_app.name))
                return Report(state=RemoteState.COMPLETED, result={"content": "# T"})

            def cancel(self, creator_task_id: str) -> None:
                seen.append(("cancel", current_app.name))

        hub = hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1)
        hub.state.creator = ContextCreator()
        first, second, third = (submit(hub) for _ in range(3))
        wait_until(lambda: {task.status for task in hub.tasks()} == {"submitted"}, timeout=20, what="all", log=str)
        cancel(hub, first)
        wait_until(lambda: ("cancel", "host") in seen, timeout=20, what="the cancellation", log=lambda: str(seen))
        thin = {"event": "completed", "taskId": second}
        assert hub.post(second, thin, attempt=1).status_code == 200
        hub.clock.advance(130)
        without_context = threading.Thread(target=_poll, args=(hub,))
        without_context.start()
        without_context.join()
        assert hub.task(third).status == "completed"
        assert {name for name, _ in seen} == {"submit", "status", "statuses", "result", "cancel"}
        assert {app for _, app in seen} == {"host"}


def _poll(host: Host) -> None:
    from flask_contenthub_webhook.tasks.reconcile import reconcile as run

    run(host.state)


class TestALongSubmission:
    def test_keeps_its_claim_for_as_long_as_it_takes(self, hosts, database_url):
        """100 s with a lease of 93: a second process handed the task over as well, and two jobs were paid."""
        short = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0, "CREATOR_API_TIMEOUT": 1}
        hub = with_own_creator(hosts(database_url, **short, CREATOR_SUBMIT_WAIT=0.1))
        other = make_host(database_url, create_tables=False, **short, CREATOR_SUBMIT_WAIT=0.1)
        other.clock, other.state.clock, other.state.creator = hub.clock, hub.clock, own(hub)

        def work_for_long(job: Job) -> Report:
            before = hub.tasks()[0].next_submit_at
            hub.clock.advance(11)
            wait_until(lambda: hub.tasks()[0].next_submit_at > before, timeout=60, what="a renewal", log=str)
            hub.clock.advance(11)  # past the first lease, not past the second
            assert sweep(other).claimed == 0
            return OPEN

        own(hub).on_submit = work_for_long
        task_id = submit(hub)
        sweep(hub)
        other.close()
        assert (hub.task(task_id).status, len(own(hub).jobs)) == ("submitted", 1)
