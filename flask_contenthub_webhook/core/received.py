"""A received event: its source, its task and attempt, and its outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from ..errors import TaskMismatch
from .canonical import message_digest
from .events import Event, Internal, trigger_of
from .state_machine import Decision, TaskState, Trigger, Verdict

__all__ = ["Outcome", "ReceivedEvent", "Row", "Source", "attempt_of", "check_belongs"]

Row = Mapping[str, Any]
"""The values of a row's attributes, by name."""


class Source(StrEnum):
    """The way by which an event arrived."""

    WEBHOOK = "webhook"
    POLL = "poll"
    RESPONSE = "response"
    REPLAY = "replay"
    HOST = "host"


@dataclass(slots=True, kw_only=True)
class ReceivedEvent:
    """A verified event, ready to be applied. It is not frozen, only because that makes each one take longer to build.

    Args:
        task_id: the task it was sent to; with ``id_may_be_creators`` it may be the creator's id instead of ours.
        event: the parsed event.
        source: the way by which it arrived.
        received_at: when it was accepted.
        attempt: the attempt it belongs to; None means the current one.
        task_is_authenticated: True if something other than the payload proves that the event was meant for this
            task (the token in the URL, our own query to the creator). Otherwise the payload's ``taskId`` must name it.
        id_may_be_creators: look the task up by ``task_id`` or ``creator_task_id``.
        scheme: the signature scheme that authenticated it, or None for an unsigned event.
        message_id: the sender's signed id of the message, the same in every resend; None for an item of a batch, whose
            id is the batch's.
        digest: the identity of a message without an id, the same however it is spelled
            (:func:`.canonical.message_digest`); by default that of the event's payload.
        body: the raw bytes.
        headers: the request headers, secrets redacted.
        remote_addr: the client's address.
        replay_of: the delivery that is being applied again.
        replayed_by: who asked for that.
        is_vouched_for: True if its sender is known to be the one that the task was submitted to.
        denial: what the creator said when it was asked about a failure, if that is not true; see
            :mod:`..engine.last_failures`.
        from_history: True if it was restored from a history row; its task was checked when the row was written.
        traceparent: of the span that it is being applied or accepted in; empty if that has no name, None without one.
    """

    task_id: str
    event: Event
    source: Source
    received_at: datetime
    attempt: int | None = None
    task_is_authenticated: bool = False
    id_may_be_creators: bool = False
    scheme: str | None = None
    message_id: str | None = None
    digest: str | None = None
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    remote_addr: str | None = None
    replay_of: int | None = None
    replayed_by: str | None = None
    is_vouched_for: bool = False
    denial: str = ""
    from_history: bool = False
    traceparent: str | None = None

    def __post_init__(self) -> None:
        if self.digest is None and self.body:
            self.digest = message_digest(self.event.payload, size=len(self.body))

    @classmethod
    def internal(
        cls,
        trigger: Trigger,
        task_id: str,
        source: Source,
        now: datetime,
        attempt: int | None = None,
        **payload: Any,
    ) -> Self:
        """Create an internal event: a time-out, a cancellation, a retry, an accepted submission.

        Its body lets it be tried again, and replayed, like any other event.
        """
        payload = {"event": trigger.value, "taskId": task_id, **payload}
        return cls(
            task_id=task_id,
            event=Internal(type=trigger.value, task_id=task_id, occurred_at=now, payload=payload),
            source=source,
            received_at=now,
            attempt=attempt,
            task_is_authenticated=True,
            body=json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
        )

    @classmethod
    def from_row(cls, row: Row, event: Event, *, replayed_at: datetime | None = None) -> Self:
        """Restore the event of a history row.

        Args:
            row: the delivery.
            event: its body, parsed.
            replayed_at: the time of a replay by a person; None for another try of the same delivery.
        """
        is_replay = replayed_at is not None
        return cls(
            task_id=row["task_id"],
            event=event,
            source=Source.REPLAY if is_replay else Source(row["source"]),
            received_at=row["received_at"] if replayed_at is None else replayed_at,
            attempt=row["attempt"],
            task_is_authenticated=row["verdict"] != Verdict.REJECTED or row["scheme"] == "url",
            scheme=row["scheme"],
            message_id=row["message_id"],
            digest=row["body_digest"],
            body=bytes(row["body"]),
            headers=row["headers"] or {},
            remote_addr=row["remote_addr"],
            replay_of=row["id"] if is_replay else row["replay_of"],
            is_vouched_for=row["verdict"] != Verdict.REJECTED,
            from_history=True,
        )

    @property
    def attempt_is_authenticated(self) -> bool:
        """True if the attempt number is authenticated, so that an old body cannot pass for a newer attempt's."""
        return self.task_is_authenticated and (
            not self.from_history or self.scheme == "url" or self.source is not Source.WEBHOOK
        )

    @property
    def came_by_callback(self) -> bool:
        """True if somebody outside sent it in our own format, so that it may be about another sender's task."""
        return not self.is_vouched_for and self.source in {Source.WEBHOOK, Source.REPLAY}

    @property
    def trigger(self) -> Trigger:
        """The event's trigger for the state machine."""
        return trigger_of(self.event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of an event.

    Args:
        verdict: processed, duplicate, ignored, stale or queued.
        delivery_id: its history row.
        task_id: our id of the task.
        status: the task's state now.
        late: True if a task that had been given up completed after all.
        will_retry: True if a failed attempt is followed by another.
        reason: an explanation, if the verdict is not enough.
    """

    verdict: Verdict
    delivery_id: int
    task_id: str
    status: TaskState
    late: bool = False
    will_retry: bool = False
    reason: str = ""

    @classmethod
    def of(cls, decision: Decision, task: Row, delivery: Row) -> Self:
        """Make the outcome of a decision, from the task and the delivery as they are now."""
        return cls(
            verdict=decision.verdict,
            delivery_id=delivery["id"],
            task_id=task["task_id"],
            status=TaskState(task["status"]),
            late=decision.late,
            will_retry=decision.will_retry,
            reason=decision.reason,
        )


def check_belongs(received: ReceivedEvent, task: Row) -> None:
    """Check that an event not authenticated by its URL names the task in its payload.

    Raises:
        TaskMismatch: it names a different one.
    """
    if received.task_is_authenticated:
        return
    names = {task["task_id"], task["creator_task_id"], *(task["earlier_creator_task_ids"] or ())}
    if received.event.task_id not in names:
        raise TaskMismatch


def attempt_of(received: ReceivedEvent, task: Row) -> int | None:
    """Return the attempt that an event belongs to; None means the current one.

    Only a token authenticates the ``attempt`` of a URL. For a signed body, the creator's id of an attempt in it decides
    instead, so that an old body cannot pass for a newer attempt's.
    """
    earlier = list(task["earlier_creator_task_ids"] or ())
    if received.task_is_authenticated or received.event.task_id not in {task["creator_task_id"], *earlier}:
        return received.attempt
    if received.event.task_id == task["creator_task_id"]:
        return int(task["attempt"])
    return int(task["attempt"]) - len(earlier) + earlier.index(received.event.task_id)
