"""The wire payload, parsed strictly into frozen events."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_contenthub_webhook.core.events import Completed, Custom, Failed, Progress, parse_event
from flask_contenthub_webhook.core.strict_json import parse_object
from flask_contenthub_webhook.errors import InvalidPayload, UnknownEvent
from tests.support.host import Capture, captures, completed, custom, failed, progress

CAPTURES = captures()
BIG = int("9" * 60)


def with_result(**fields: Any) -> dict[str, Any]:
    event = completed("t")
    event["result"].update(fields)
    return event


def with_error(error: Any) -> dict[str, Any]:
    return {**failed("t"), "error": error}


def with_progress(report: Any) -> dict[str, Any]:
    return {**progress("t", 1), "progress": report}


# --- the real sender ---------------------------------------------------------------------------------------------


def test_there_are_fifteen_captures():
    assert len(CAPTURES) == 15


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=lambda capture: capture.name)
def test_every_real_request_is_an_event(capture: Capture):
    payload = parse_object(capture.body)

    event = parse_event(payload)

    assert event.type == capture.headers["X-Webhook-Event"]
    assert event.task_id == capture.headers["X-Task-ID"]
    assert event.payload == payload
    assert event.occurred_at is not None
    assert event.occurred_at.tzinfo is UTC


def test_the_real_result_without_content_is_thin():
    event = parse_event(parse_object(CAPTURES["completed-agent-workflow"].body))

    assert isinstance(event, Completed)
    assert event.missing == ("content",)


def test_a_real_failure_has_its_error_as_it_came():
    event = parse_event(parse_object(CAPTURES["failed-llm-http-400"].body))

    assert isinstance(event, Failed)
    assert event.error["type"] == "execution_error"
    assert event.retryable


# --- completed ---------------------------------------------------------------------------------------------------


def test_a_result_keeps_the_fields_that_nobody_knows():
    event = parse_event(with_result(audio={"url": "x"}))

    assert isinstance(event, Completed)
    assert event.result["audio"] == {"url": "x"}
    assert event.missing == ()


@pytest.mark.parametrize(
    "images",
    [
        [],
        None,
        ["a.png", "b.png"],
        [{"url": "https://x/a.png"}],
        [{"url": "a", "localPath": "/tmp/a", "prompt": "p", "width": 1024, "height": 768.0, "format": "png"}],
        ["a.png", {"url": "b.png", "extra": [1]}],
    ],
    ids=str,
)
def test_images_may_be_objects_texts_or_absent(images: Any):
    assert isinstance(parse_event(with_result(images=images)), Completed)


@pytest.mark.parametrize("content", ["", "  \n\t", None])
def test_empty_content_counts_as_missing(content: str | None):
    event = parse_event(with_result(content=content))

    assert isinstance(event, Completed)
    assert event.missing == ("content",)


def test_a_completion_without_a_result_is_thin():
    payload = completed("t")
    del payload["result"]
    event = parse_event(payload)

    assert isinstance(event, Completed)
    assert (event.result, event.missing) == ({}, ("content",))


def test_the_required_fields_can_be_chosen():
    event = parse_event(with_result(htmlContent="<p>"), required_fields=("htmlContent", "cover", "content"))

    assert isinstance(event, Completed)
    assert event.missing == ("cover",)


def test_no_field_need_be_required():
    event = parse_event({"event": "completed", "taskId": "t"}, required_fields=())

    assert isinstance(event, Completed)
    assert event.missing == ()


def test_a_score_beyond_64_bits_is_a_number():
    event = parse_event(with_result(qualityScore=BIG))

    assert isinstance(event, Completed)
    assert event.result["qualityScore"] == BIG


def test_a_count_that_json_numbers_do_not_carry_is_refused():
    with pytest.raises(InvalidPayload, match=r"\$\.result\.wordCount"):
        parse_event(with_result(wordCount=BIG))


# --- failed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retryable", [True, None])
def test_a_failure_is_retryable_unless_the_sender_rules_it_out(retryable: bool | None):
    event = parse_event(failed("t", retryable=retryable))

    assert isinstance(event, Failed)
    assert event.retryable


def test_the_sender_can_rule_out_another_attempt():
    event = parse_event(failed("t", retryable=False))

    assert isinstance(event, Failed)
    assert not event.retryable


def test_an_error_may_have_a_code_and_nothing_else_but_its_message():
    for error in ({"message": "x"}, {"message": "x", "code": "E42"}, {"message": "x", "code": 42}):
        event = parse_event(with_error(error))
        assert isinstance(event, Failed)
        assert event.error == error


# --- progress ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percentage", [0, 0.0, 33.3, 100])
def test_progress_is_a_percentage(percentage: float):
    event = parse_event(progress("t", percentage))

    assert isinstance(event, Progress)
    assert event.percentage == percentage
    assert event.progress["message"] == "写作中"


# --- custom ------------------------------------------------------------------------------------------------------


def test_a_declared_type_is_a_custom_event():
    event = parse_event(custom("t", "illustrated", images=3), custom_types=["illustrated"])

    assert isinstance(event, Custom)
    assert event.payload["images"] == 3


@pytest.mark.parametrize("type_", ["illustrated", "Completed", "x" * 200])
def test_an_undeclared_type_is_unknown(type_: str):
    with pytest.raises(UnknownEvent, match="completed, failed, progress, published"):
        parse_event(custom("t", type_), custom_types=["published"])


def test_the_status_of_a_custom_event_is_its_own():
    event = parse_event(custom("t", "illustrated", status="anything"), custom_types=["illustrated"])

    assert event.type == "illustrated"


# --- the envelope ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-11-23T15:27:35.632Z", datetime(2026, 11, 23, 15, 27, 35, 632000, UTC)),
        ("2026-11-23T23:27:35+08:00", datetime(2026, 11, 23, 15, 27, 35, 0, UTC)),
        ("2026-11-23T15:27:35", datetime(2026, 11, 23, 15, 27, 35, 0, UTC)),
        (None, None),
    ],
)
def test_the_time_is_aware_and_in_utc(timestamp: str | None, expected: datetime | None):
    assert parse_event(completed("t", timestamp=timestamp)).occurred_at == expected


@pytest.mark.parametrize("kind", ["completed", "failed", "progress"])
def test_only_event_and_task_id_and_the_body_of_the_event_are_needed(kind: str):
    whole = {"completed": completed("t"), "failed": failed("t"), "progress": progress("t", 5)}[kind]
    needed = {key: value for key, value in whole.items() if key in {"event", "taskId", "result", "error", "progress"}}

    assert parse_event(needed).occurred_at is None


def test_an_event_is_frozen():
    event = parse_event(completed("t"))

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.task_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, "event"),
        ({"event": "completed"}, "taskId"),
        ({"event": None, "taskId": "t"}, r"\$\.event"),
        ({"event": 1, "taskId": "t"}, r"\$\.event"),
        ({"event": ["completed"], "taskId": "t"}, r"\$\.event"),
        ({"event": "", "taskId": "t"}, r"\$\.event"),
        ({**completed("t"), "taskId": 5}, r"\$\.taskId"),
        ({**completed("t"), "taskId": ""}, r"\$\.taskId"),
        ({**completed("t"), "taskId": "x" * 256}, r"\$\.taskId"),
        ({**completed("t"), "taskId": None}, r"\$\.taskId"),
        ({**completed("t"), "status": "failed"}, r"\$\.status"),
        ({**failed("t"), "status": "completed"}, r"\$\.status"),
        ({**completed("t"), "metadata": []}, r"\$\.metadata"),
        ({**completed("t"), "workflowType": 3}, r"\$\.workflowType"),
        ({**completed("t"), "timestamp": "yesterday"}, r"\$\.timestamp"),
        ({**completed("t"), "timestamp": 1732375655}, r"\$\.timestamp"),
        ({**completed("t"), "timestamp": "0001-01-01T00:00:00+23:59"}, r"\$\.timestamp"),
        ({**completed("t"), "timestamp": "9999-12-31T23:59:59-23:59"}, r"\$\.timestamp"),
        ({**completed("t"), "result": None}, r"\$\.result"),
        ({**completed("t"), "result": []}, r"\$\.result"),
        ({**completed("t"), "result": "text"}, r"\$\.result"),
        (with_result(content=5), r"\$\.result\.content"),
        (with_result(content=["a"]), r"\$\.result\.content"),
        (with_result(htmlContent=5), r"\$\.result\.htmlContent"),
        (with_result(images="a.png"), r"\$\.result\.images"),
        (with_result(images={}), r"\$\.result\.images"),
        (with_result(images=[5]), r"\$\.result\.images\[0\]"),
        (with_result(images=[None]), r"\$\.result\.images\[0\]"),
        (with_result(images=["a", {"prompt": "no url"}]), r"\$\.result\.images\[1\]"),
        (with_result(images=[{"url": 5}]), r"\$\.result\.images\[0\]\.url"),
        (with_result(images=[{"url": "a", "width": "wide"}]), r"\$\.result\.images\[0\]\.width"),
        (with_result(qualityScore="good"), r"\$\.result\.qualityScore"),
        (with_result(qualityScore=True), r"\$\.result\.qualityScore"),
        (with_result(wordCount="many"), r"\$\.result\.wordCount"),
        (with_result(metrics=[]), r"\$\.result\.metrics"),
        (with_result(metrics={"stepsCompleted": "all"}), r"\$\.result\.metrics\.stepsCompleted"),
        ({"event": "failed", "taskId": "t"}, "error"),
        (with_error("a text"), r"\$\.error"),
        (with_error(None), r"\$\.error"),
        (with_error([]), r"\$\.error"),
        (with_error({}), "message"),
        (with_error({"message": None}), r"\$\.error\.message"),
        (with_error({"message": {}}), r"\$\.error\.message"),
        (with_error({"message": "x", "code": []}), r"\$\.error\.code"),
        (with_error({"message": "x", "details": "none"}), r"\$\.error\.details"),
        (with_error({"message": "x", "details": {"retryable": "no"}}), r"\$\.error\.details\.retryable"),
        ({"event": "progress", "taskId": "t"}, "progress"),
        (with_progress(50), r"\$\.progress"),
        (with_progress(None), r"\$\.progress"),
        (with_progress({}), "percentage"),
        (with_progress({"percentage": "50"}), r"\$\.progress\.percentage"),
        (with_progress({"percentage": None}), r"\$\.progress\.percentage"),
        (with_progress({"percentage": True}), r"\$\.progress\.percentage"),
        (with_progress({"percentage": -0.1}), r"\$\.progress\.percentage"),
        (with_progress({"percentage": 100.1}), r"\$\.progress\.percentage"),
        (with_progress({"percentage": BIG}), r"\$\.progress\.percentage"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_field_is_refused_with_its_path(payload: dict[str, Any], path: str):
    with pytest.raises(InvalidPayload, match=path):
        parse_event(payload)


_FIRST_EVENTS = """
import sys
from flask_contenthub_webhook.core.events import parse_event
from tests.support.host import completed, custom, failed, progress

called = set()
sys.setprofile(lambda frame, *_: called.add(frame.f_code.co_name))
for payload in (completed("t"), failed("t"), progress("t", 5), custom("t", "illustrated")):
    parse_event(payload, custom_types={"illustrated"})
sys.setprofile(None)
assert "parse_event" in called
print(sorted(name for name in called if name.startswith("get_class_annotations")))
"""


def test_shapes_are_known_before_the_first_events_come_in_several_threads_at_once() -> None:
    first = subprocess.run([sys.executable, "-c", _FIRST_EVENTS], capture_output=True, text=True, check=True)

    assert first.stdout == "[]\n"
