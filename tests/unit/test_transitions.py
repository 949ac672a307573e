"""The transition table of docs/how-it-works.md, cell by cell, written down a second time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_contenthub_webhook.core.state_machine import (
    OPEN_STATES,
    TERMINAL_STATES,
    TRANSITIONS,
    TaskState,
    TaskView,
    Trigger,
    Verdict,
    decide,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OPEN = ("pending", "submitted", "processing")

# trigger, state -> verdict, new state, late; "stay" where the state stays.
TABLE = {
    **{("progress", state): ("processed", "processing", False) for state in OPEN},
    ("progress", "completed"): ("ignored", "stay", False),
    ("progress", "failed"): ("ignored", "stay", False),
    ("progress", "timeout"): ("ignored", "stay", False),
    ("progress", "cancelled"): ("ignored", "stay", False),
    **{("completed", state): ("processed", "completed", False) for state in OPEN},
    ("completed", "completed"): ("duplicate", "stay", False),
    ("completed", "failed"): ("processed", "completed", True),
    ("completed", "timeout"): ("processed", "completed", True),
    ("completed", "cancelled"): ("ignored", "stay", False),
    **{("failed", state): ("processed", "failed", False) for state in OPEN},  # no retries left
    ("failed", "completed"): ("ignored", "stay", False),
    ("failed", "failed"): ("duplicate", "stay", False),
    ("failed", "timeout"): ("processed", "failed", False),
    ("failed", "cancelled"): ("ignored", "stay", False),
    **{("timed_out", state): ("processed", "timeout", False) for state in OPEN},
    **{("cancelled", state): ("processed", "cancelled", False) for state in OPEN},
    ("cancelled", "cancelled"): ("duplicate", "stay", False),
    # A completed callback without a usable result ends the task, and no other attempt would help.
    **{("invalid_result", state): ("processed", "failed", False) for state in OPEN},
    ("invalid_result", "completed"): ("ignored", "stay", False),
    ("invalid_result", "cancelled"): ("ignored", "stay", False),
    # Custom events change no state.
    **{("custom", state): ("processed", "stay", False) for state in (*OPEN, "completed", "failed", "timeout")},
    ("custom", "cancelled"): ("processed", "stay", False),
}


def view(status: str = "submitted", *, attempt: int = 1, max_retries: int = 0, **more: Any) -> TaskView:
    return TaskView(status=TaskState(status), attempt=attempt, max_retries=max_retries, **more)


@pytest.mark.parametrize(("trigger", "status"), TABLE, ids=lambda name: name)
def test_the_table_of_the_design_holds(trigger: str, status: str):
    verdict, to, late = TABLE[trigger, status]

    decision = decide(Trigger(trigger), view(status))

    assert (decision.verdict, decision.to or "stay", decision.late) == (verdict, to, late)
    assert not decision.refused


@pytest.mark.parametrize("status", ["completed", "failed", "timeout"])
def test_a_finished_task_cannot_be_cancelled(status: str):
    decision = decide(Trigger.CANCELLED, view(status))

    assert decision.refused
    assert decision.to is None


@pytest.mark.parametrize("status", ["completed", "failed", "timeout", "cancelled"])
def test_a_deadline_does_nothing_to_a_finished_task(status: str):
    assert decide(Trigger.TIMED_OUT, view(status)).to is None


@pytest.mark.parametrize("trigger", Trigger)
def test_every_trigger_has_a_rule_for_every_state(trigger: Trigger):
    assert set(TRANSITIONS[trigger]) == set(TaskState)


def test_every_state_is_either_open_or_terminal():
    assert {*OPEN_STATES, *TERMINAL_STATES} == set(TaskState)
    assert set(OPEN_STATES).isdisjoint(TERMINAL_STATES)


# --- attempts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", OPEN)
def test_a_failure_with_retries_left_goes_back_to_pending(status: str):
    decision = decide(Trigger.FAILED, view(status, max_retries=1), attempt=1)

    assert (decision.verdict, decision.to, decision.will_retry) == (Verdict.PROCESSED, TaskState.PENDING, True)


@pytest.mark.parametrize(
    ("attempt", "to"), [(1, "pending"), (2, "pending"), (3, "pending"), (4, "failed"), (5, "failed")]
)
def test_three_retries_are_four_attempts(attempt: int, to: str):
    decision = decide(Trigger.FAILED, view(attempt=attempt, max_retries=3), attempt=attempt)

    assert decision.to == to
    assert decision.will_retry is (to == "pending")


def test_a_sender_that_rules_out_another_attempt_gets_none():
    decision = decide(Trigger.FAILED, view(max_retries=3), attempt=1, retryable=False)

    assert (decision.to, decision.will_retry) == (TaskState.FAILED, False)


def test_an_invalid_result_is_not_tried_again():
    decision = decide(Trigger.INVALID_RESULT, view(max_retries=3), attempt=1)

    assert (decision.to, decision.will_retry) == (TaskState.FAILED, False)


@pytest.mark.parametrize("trigger", [Trigger.FAILED, Trigger.INVALID_RESULT, Trigger.PROGRESS])
@pytest.mark.parametrize("status", OPEN)
def test_what_speaks_for_an_older_attempt_of_an_open_task_is_stale(trigger: Trigger, status: str):
    decision = decide(trigger, view(status, attempt=3), attempt=2, percentage=90)

    assert (decision.verdict, decision.to) == (Verdict.STALE, None)
    assert "2" in decision.reason
    assert "3" in decision.reason


@pytest.mark.parametrize("status", ["completed", "failed", "timeout", "cancelled"])
def test_a_failure_of_an_older_attempt_is_ignored_once_the_task_is_finished(status: str):
    decision = decide(Trigger.FAILED, view(status, attempt=3), attempt=2)

    assert (decision.verdict, decision.to) == (Verdict.IGNORED, None)


@pytest.mark.parametrize("status", OPEN)
@pytest.mark.parametrize("attempt", [1, 2, 3, None])
def test_a_completion_of_any_attempt_counts(status: str, attempt: int | None):
    assert decide(Trigger.COMPLETED, view(status, attempt=3), attempt=attempt).to is TaskState.COMPLETED


def test_a_failure_without_an_attempt_speaks_for_the_current_one():
    assert decide(Trigger.FAILED, view(attempt=4, max_retries=3), attempt=None).to is TaskState.FAILED


# --- copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", [Trigger.FAILED, Trigger.PROGRESS, Trigger.CUSTOM, Trigger.INVALID_RESULT])
@pytest.mark.parametrize("status", OPEN)
def test_what_was_applied_before_is_a_duplicate(trigger: Trigger, status: str):
    decision = decide(trigger, view(status, max_retries=3), seen_before=True, percentage=10)

    assert (decision.verdict, decision.to) == (Verdict.DUPLICATE, None)


def test_a_copy_of_an_older_attempts_failure_is_stale_rather_than_a_duplicate():
    decision = decide(Trigger.FAILED, view(attempt=2, max_retries=3), attempt=1, seen_before=True)

    assert decision.verdict is Verdict.STALE


# --- progress ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "new", "verdict"),
    [(None, 0, "processed"), (0, 1, "processed"), (40, 40.5, "processed"), (40, 39.9, "ignored"), (100, 0, "ignored")],
)
def test_progress_only_moves_forward(stored: float | None, new: float, verdict: str):
    decision = decide(Trigger.PROGRESS, view(percentage=stored), percentage=new)

    assert decision.verdict == verdict
    assert decision.to == (TaskState.PROCESSING if verdict == "processed" else None)


@pytest.mark.parametrize(
    ("stored_at", "occurred_at", "verdict"),
    [
        (NOON, NOON + timedelta(seconds=1), "processed"),
        (NOON, NOON, "ignored"),
        (NOON, NOON - timedelta(seconds=1), "ignored"),
        (NOON, None, "ignored"),
        (None, NOON, "processed"),
        (None, None, "ignored"),
    ],
)
def test_at_the_same_percentage_the_later_report_is_news(
    stored_at: datetime | None, occurred_at: datetime | None, verdict: str
):
    task = view("processing", percentage=40, progress_at=stored_at)

    assert decide(Trigger.PROGRESS, task, percentage=40, occurred_at=occurred_at).verdict == verdict
