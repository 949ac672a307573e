"""An event on its way through the application: how it came, and what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from .events import Completed, Event, Failed, Internal, Progress
from .state_machine import TaskState, Trigger, Verdict

__all__ = ["Applied", "Inbound", "Source"]


class Source(StrEnum):
    """What brought an event."""

    WEBHOOK = "webhook"
    POLL = "poll"
    RESPONSE = "response"
    REPLAY = "replay"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One believed event, ready to be applied.

    Args:
        task_id: the task it was sent to; with ``by_any_id`` it may be the creator's id instead of ours.
        event: the parsed event.
        source: what brought it.
        received_at: when it was accepted.
        attempt: the attempt it speaks for; None speaks for the current one.
        bound_to_task: True where something other than the payload vouches that the event was meant for this task
            (the token in the URL, our own question to the creator). Otherwise the payload's ``taskId`` must name it.
        by_any_id: look the task up by ``task_id`` or ``creator_task_id``.
        scheme: the signature scheme that vouched, or None for an unsigned event.
        message_id: the sender's id of the message, the same on every retry.
        body: the raw bytes.
        headers: the request headers, secrets redacted.
        remote_addr: the client's address.
        replay_of: the delivery that is being applied again.
        was_kept: True where this is made from a history row; it was found to be its task's when that was written.
    """

    task_id: str
    event: Event
    source: Source
    received_at: datetime
    attempt: int | None = None
    bound_to_task: bool = False
    by_any_id: bool = False
    scheme: str | None = None
    message_id: str | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    remote_addr: str | None = None
    replay_of: int | None = None
    was_kept: bool = False

    @property
    def is_attempt_vouched(self) -> bool:
        """Whether nobody can have made an old body speak for another ``attempt`` than the one that it was sent for."""
        if self.message_id is not None:
            return True
        return self.bound_to_task and (not self.was_kept or self.scheme == "url" or self.source is not Source.WEBHOOK)

    @property
    def digest(self) -> str:
        """SHA-256 of the body, in hex."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def trigger(self) -> Trigger:
        """What the event asks of the state machine."""
        match self.event:
            case Completed(missing=()):
                return Trigger.COMPLETED
            case Completed():
                return Trigger.INVALID_RESULT
            case Failed():
                return Trigger.FAILED
            case Progress():
                return Trigger.PROGRESS
            case Internal():
                return Trigger(self.event.type)
            case _:
                return Trigger.CUSTOM


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of an event.

    Args:
        verdict: processed, duplicate, ignored, stale or queued.
        delivery_id: its history row.
        task_id: our id of the task.
        status: the task's state now.
        late: True where a task that we had given up on completed after all.
        will_retry: True where a failed attempt is followed by another.
        reason: why, where the verdict does not say it all.
    """

    verdict: Verdict
    delivery_id: int
    task_id: str
    status: TaskState
    late: bool = False
    will_retry: bool = False
    reason: str = ""
