"""What the extension asks of a creator: five calls, and the values that they exchange.

Another service is plugged in with one class that has these five methods; nothing else in the package knows how a
creator is reached. A creator never touches the database, and is never called while a transaction is open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

__all__ = ["Creator", "Job", "RemoteState", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt of a task, as it is handed to the creator.

    Args:
        creator_task_id: the name under which the creator is to keep it; fresh for every attempt, a UUID.
        topic: what to write about.
        requirements: how.
        target_audience: for whom.
        keywords: words that are to appear.
        tone: for example ``professional``.
        priority: 1 (low) to 4 (urgent).
        callback_url: where to report, or None for no callbacks.
        callback_events: the event types that are asked for.
        options: whatever else the creator understands, by its own names.
    """

    creator_task_id: str
    topic: str | None = None
    requirements: str | None = None
    target_audience: str | None = None
    keywords: tuple[str, ...] = ()
    tone: str | None = None
    priority: int = 2
    callback_url: str | None = None
    callback_events: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class RemoteState(StrEnum):
    """Where a job stands, as the creator says."""

    OPEN = "open"
    """Accepted: waiting or being worked on."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSING = "missing"
    """The creator certainly does not know the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the creator says of one job.

    Args:
        state: where it stands.
        result: the result object, with a completed job, where the answer brought it; :meth:`Creator.result` has it
            otherwise.
        error: the error object of a failed job, with at least ``message``.
        raw: the answer as it came, for the history.
        creator_task_id: after a submission, the name that a creator of its own mind gave the job instead of ours.
    """

    state: RemoteState
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    raw: bytes = b""
    creator_task_id: str | None = None


@runtime_checkable
class Creator(Protocol):
    """A service that does jobs.

    Every method may raise :class:`~flask_contenthub_webhook.errors.CreatorUnreachable` (nothing was delivered, the
    call may be repeated), :class:`~flask_contenthub_webhook.errors.CreatorUnclear` (the connection was cut or the
    answer made no sense; what it did is unknown, the same call is not repeated at once) or
    :class:`~flask_contenthub_webhook.errors.CreatorRefused` (the creator understood and said no).
    """

    def submit(self, job: Job, *, wait: float) -> Report:
        """Hand a job over.

        Args:
            job: the job.
            wait: seconds to wait for an early refusal or an early result; after that, hanging up means OPEN.

        Returns:
            OPEN, or COMPLETED or FAILED where the answer came in time and brought the outcome.
        """

    def status(self, creator_task_id: str) -> Report:
        """Where one job stands. Only asked for jobs that the creator accepted."""

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """Where many jobs stand, in as few requests as possible.

        Args:
            creator_task_ids: jobs that the creator accepted.
            since: none of them was submitted before; a creator that lists newest first can stop there.

        Returns:
            A report for every job whose state could be found out; a job that is left out is asked about singly, so
            a creator that cannot tell of many jobs at once returns nothing.
        """

    def result(self, creator_task_id: str) -> Report:
        """The result of a job; only asked for after its state said COMPLETED."""

    def cancel(self, creator_task_id: str) -> None:
        """Ask for a job to be stopped; best effort."""
