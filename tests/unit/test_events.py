"""The wire payload, parsed into frozen events: strict where an effect needs it, kept and noted where it does not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# --- fields that nothing depends on ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("wordCount", 1200.0, 1200),
        ("wordCount", "1200", 1200),
        ("wordCount", None, None),
        ("qualityScore", "8.4", 8.4),
        ("images", {}, []),
        ("images", [{"url": "a", "width": "640"}, "b"], [{"url": "a", "width": 640.0}, "b"]),
        ("metrics", [], {}),
        ("metrics", {"stepsCompleted": {}, "other": {}}, {"stepsCompleted": [], "other": {}}),
    ],
    ids=str,
)
def test_a_field_in_another_spelling_is_read(field: str, value: Any, read: Any):
    payload = with_result(**{field: value})
    event = parse_event(payload)

    assert isinstance(event, Completed)
    assert (event.result[field], type(event.result[field])) == (read, type(read))
    assert event.payload["result"][field] is value
    assert event.notes == ()


@pytest.mark.parametrize(
    ("payload", "note"),
    [
        ({**completed("t"), "status": "success"}, "`$.status` is text, not 'completed'"),
        ({**failed("t"), "status": 500}, "`$.status` is a number, not 'failed'"),
        ({**completed("t"), "metadata": "none"}, "`$.metadata` is text, not an object"),
        ({**completed("t"), "workflowType": 3}, "`$.workflowType` is a number, not text"),
        (with_result(htmlContent=5), "`$.result.htmlContent` is a number, not text"),
        (with_result(images="a.png"), "`$.result.images` is text, not a list"),
        (with_result(images=["a", 5]), "`$.result.images[1]` is a number, not a URL or an object with `url`"),
        (with_result(images=[None]), "`$.result.images[0]` is null, not a URL or an object with `url`"),
        (with_result(images=[{"prompt": "p"}]), "`$.result.images[0]` is an object, not a URL or an object with `url`"),
        (with_result(images=[{"url": "a", "width": "wide"}]), "`$.result.images[0].width` is text, not a number"),
        (with_result(qualityScore="good"), "`$.result.qualityScore` is text, not a number"),
        (with_result(qualityScore=True), "`$.result.qualityScore` is a boolean, not a number"),
        (with_result(wordCount=8.5), "`$.result.wordCount` is a number, not a whole number from 0 to 2^53"),
        (with_result(wordCount=BIG), "`$.result.wordCount` is a number, not a whole number from 0 to 2^53"),
        (with_result(wordCount=-1), "`$.result.wordCount` is a number, not a whole number from 0 to 2^53"),
        (with_result(metrics=[1]), "`$.result.metrics` is a list, not an object"),
        (with_result(metrics={"stepsCompleted": 3}), "`$.result.metrics.stepsCompleted` is a number, not a list"),
        (with_error({"message": "x", "code": []}), "`$.error.code` is a list, not text or a number"),
        (with_error({"message": "x", "details": "none"}), "`$.error.details` is text, not an object"),
        (
            with_error({"message": "x", "details": {"retryable": "no"}}),
            "`$.error.details.retryable` is text, not a boolean",
        ),
        (with_progress({"percentage": 5, "totalSteps": "all"}), "`$.progress.totalSteps` is text, not a whole number"),
        ({**custom("t", "illustrated"), "metadata": 5}, "`$.metadata` is a number, not an object"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_a_field_that_cannot_be_read_is_kept_and_noted(payload: dict[str, Any], note: str):
    event = parse_event(payload, custom_types=["illustrated"])

    (noted,) = event.notes
    assert noted.startswith(note)
    assert event.payload == payload
    for part in ("result", "error", "progress"):
        if part in payload:
            assert getattr(event, part) == payload[part]


def test_notes_are_few_however_many_fields_cannot_be_read():
    event = parse_event(with_result(images=[5] * 1000))

    assert len(event.notes) == 6
    assert event.notes[-1] == "and 995 more"


def test_a_field_that_the_host_requires_must_be_readable():
    with pytest.raises(InvalidPayload, match=r"\$\.result\.wordCount"):
        parse_event(with_result(wordCount="many"), required_fields=("wordCount",))

    assert parse_event(with_result(content=5), required_fields=("wordCount",)).notes


@pytest.mark.parametrize("result", [None, []], ids=str)
def test_an_empty_result_is_thin(result: Any):
    event = parse_event({**completed("t"), "result": result})

    assert isinstance(event, Completed)
    assert (event.result, event.missing, event.notes) == ({}, ("content",), ())


@pytest.mark.parametrize(("text", "retryable"), [("false", False), ("True", True)])
def test_a_boolean_may_be_text(text: str, retryable: bool):
    event = parse_event(with_error({"message": "x", "details": {"retryable": text}}))

    assert isinstance(event, Failed)
    assert event.retryable is retryable


def test_an_error_may_be_its_message_alone():
    event = parse_event(with_error("no luck"))

    assert isinstance(event, Failed)
    assert event.error == {"message": "no luck"}


def test_a_percentage_may_be_text():
    event = parse_event(with_progress({"percentage": "50"}))

    assert isinstance(event, Progress)
    assert event.percentage == 50.0


TEN_O_CLOCK = datetime(2026, 11, 28, 10, 0, 0, 0, UTC)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-28 10:00:00 UTC",
        "2026-11-28 11:00:00 +0100",
        "2026-11-28T10:00:00,000000000+00:00",
        "2026-11-28t10:00:00z",
        "2026-11-28 11:00:00.000000001 +0100 CET m=+0.000012345",
        "Sat, 28 Nov 2026 10:00:00 +0000",
        "Sat, 28 Nov 2026 10:00:00 GMT",
        1795860000,
        1795860000.0,
        1795860000000,
        1795860000000000,
        1795860000000000000,
        "1795860000",
        "1795860000000",
    ],
    ids=str,
)
def test_a_time_is_read_as_any_language_writes_it(timestamp: Any):
    event = parse_event(completed("t", timestamp=timestamp))

    assert (event.occurred_at, event.notes) == (TEN_O_CLOCK, ())


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00Z", "", 0, None], ids=repr)
def test_a_zero_time_is_none(timestamp: Any):
    event = parse_event(completed("t", timestamp=timestamp))

    assert (event.occurred_at, event.notes) == (None, ())


@pytest.mark.parametrize(
    "timestamp",
    [
        "yesterday",
        "9999-12-31T23:59:59-23:59",
        "1969-12-31T23:59:59Z",
        "2201-01-01T00:00:00Z",
        "0001-01-02T00:00:00Z",
        "2026-11-31T10:00:00Z",
        "99 Nov 2026 10:00:00 +0000",
        "1 Nov 2026 10:00:00 +99999999",
        -5,
        BIG,
        True,
        {},
        "2026-11-28T10:00:00Z" + " " * 1000,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_time_that_cannot_be_read_is_none_and_noted(timestamp: Any):
    event = parse_event(completed("t", timestamp=timestamp))

    assert event.occurred_at is None
    assert event.notes[0].startswith("`$.timestamp` is ")


@given(
    st.text(max_size=70)
    | st.from_regex(r"[A-Z0-9 ,:+-]{0,8}20\d\d[-A-Za-z0-9 ,.:+]{0,40}")
    | st.floats()
    | st.integers()
)
def test_no_timestamp_raises(timestamp: Any):
    occurred_at = parse_event(completed("t", timestamp=timestamp)).occurred_at

    assert occurred_at is None or 1970 <= occurred_at.year <= 2200


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
        ({**completed("t"), "result": "text"}, r"\$\.result"),
        (with_result(content=5), r"\$\.result\.content"),
        (with_result(content=["a"]), r"\$\.result\.content"),
        ({"event": "failed", "taskId": "t"}, "error"),
        (with_error(None), r"\$\.error"),
        (with_error([]), r"\$\.error"),
        (with_error({}), "message"),
        (with_error({"message": None}), r"\$\.error\.message"),
        (with_error({"message": {}}), r"\$\.error\.message"),
        (with_error("  "), r"\$\.error"),
        ({"event": "progress", "taskId": "t"}, "progress"),
        (with_progress(50), r"\$\.progress"),
        (with_progress(None), r"\$\.progress"),
        (with_progress({}), "percentage"),
        (with_progress({"percentage": "half"}), r"\$\.progress\.percentage"),
        (with_progress({"percentage": "nan"}), r"\$\.progress\.percentage"),
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
