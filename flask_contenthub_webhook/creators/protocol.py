"""The interface of a creator: five methods, two for callbacks in its own words, and the values that they exchange.

To use another service, write a class with these methods; nothing else in the package knows how a creator is called. A
creator does not use the database, and is never called while a transaction is open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, Self, runtime_checkable

from .headers import CaseInsensitive

__all__ = ["Callback", "Creator", "Job", "RemoteState", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A request of a service that reports in its own words.

    Args:
        headers: by names in any case.
        body: the raw bytes.
        query: the parameters of the URL.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", CaseInsensitive(self.headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An attempt of a task, as it is submitted to the creator.

    Args:
        creator_task_id: the id that the creator should use; a new UUID for every attempt.
        task_id: our id of the task, the same for every attempt. A service that keeps metadata with a job should be
            given it, and return it as ``Report.task_id``.
        attempt: the number of the attempt, from 1.
        topic: what to write about.
        requirements: how to write it.
        target_audience: whom to write for.
        keywords: words that should appear.
        tone: for example ``professional``.
        priority: 1 (low) to 4 (urgent).
        callback_url: where to send callbacks, or None for none.
        callback_events: the event types to send.
        options: further parameters, under the creator's own names.
    """

    creator_task_id: str
    task_id: str = ""
    attempt: int = 1
    topic: str | None = None
    requirements: str | None = None
    target_audience: str | None = None
    keywords: tuple[str, ...] = ()
    tone: str | None = None
    priority: int = 2
    callback_url: str | None = field(default=None, repr=False)
    callback_events: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def prompt(self) -> str:
        """The topic and the requirements as one text, for a service that takes no more."""
        return "\n\n".join(filter(None, (self.topic, self.requirements)))

    @classmethod
    def of(cls, task: Mapping[str, Any], *, creator_task_id: str | None = None) -> Self:
        """Return the current attempt of a task's row, or, by its name, an earlier one."""
        return cls(
            creator_task_id=creator_task_id or task["creator_task_id"],
            task_id=task["task_id"],
            attempt=_attempt_of(task, creator_task_id),
            topic=task["topic"],
            requirements=task["requirements"],
            target_audience=task["target_audience"],
            keywords=tuple(task["keywords"] or ()),
            tone=task["tone"],
            priority=task["priority"],
            callback_url=task["callback_url"],
            callback_events=tuple(task["callback_events"] or ()),
            options=task["creator_options"] or {},
        )


def _attempt_of(task: Mapping[str, Any], name: str | None) -> int:
    earlier = list(task["earlier_creator_task_ids"] or ())
    back = len(earlier) - earlier.index(name) if name in earlier else 0
    return int(task["attempt"]) - back


class RemoteState(StrEnum):
    """State of a job, as the creator reports it."""

    OPEN = "open"
    """Accepted: waiting or running."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSING = "missing"
    """The creator definitely does not have the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A creator's report on a job.

    Args:
        state: the job's state.
        result: the result object of a completed job, if the answer contained it; otherwise it is fetched with
            :meth:`Creator.result`.
        error: the error object of a failed job, with at least ``message``.
        raw: the answer as received, for the history.
        creator_task_id: the creator's own id of the job, if it did not keep ours: after a submission, in a callback.
        task_id: our id of the task, if the service has kept ``Job.task_id``.
        attempt: its attempt, if the service has kept ``Job.attempt``.
        progress: the progress object of an open job, with at least ``percentage``, from 0 to 100.
    """

    state: RemoteState
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    raw: bytes = b""
    creator_task_id: str | None = None
    task_id: str | None = None
    attempt: int | None = None
    progress: Mapping[str, Any] | None = None


@runtime_checkable
class Creator(Protocol):
    """A service that does jobs.

    Every method may raise :class:`~flask_contenthub_webhook.errors.CreatorUnreachable` (the request was not delivered
    and may be repeated), :class:`~flask_contenthub_webhook.errors.CreatorUnclear` (it may or may not have received the
    request: no answer in time, unreadable answer; not repeated at once) or
    :class:`~flask_contenthub_webhook.errors.CreatorRefused` (it understood the request and refused it).

    If the answer to a submission is lost, nothing is submitted again while that job may live, unless the class says
    more about its service, by optional attributes:

    - ``idempotent = True``: a second ``submit`` with the same ``job.creator_task_id`` starts no second job;
    - ``keeps_names = True``: the service knows each job by ``job.creator_task_id``;
    - ``find(job, *, since=None) -> Report``: looks up a job that was not submitted before ``since``. MISSING means that
      no such job was ever started; ``creator_task_id`` is the service's own name for it.

    A creator whose service calls back in its own words has one or two more methods:

    - ``read_callback(callback: Callback) -> Report | None``: what the service says; None if it is about no job of ours.
      It is given what the history keeps: the raw body, and the headers without secrets. It may ask the service;
    - ``verify_callback(callback: Callback) -> str | None``: raises unless the service sent the callback; returns the
      service's id of the message, if it has one. One of the errors above means that it cannot be told now. Without
      this method, only the token of a task's own URL is believed.

    Further optional attributes hold for the tasks of this creator alone: ``required_result_fields``, ``poll_interval``,
    ``poll_grace`` and ``poll_max_interval`` (in seconds), in the place of the configuration keys of these names, and
    ``callbacks = False`` for a service that is only polled.

    ``address``, if present, is kept with each submitted task: the text tells one installation of a service from
    another.
    """

    def submit(self, job: Job, *, wait: float) -> Report:
        """Submit a job.

        Args:
            job: the job.
            wait: seconds to wait for a refusal or a result; after that, return OPEN.

        Returns:
            OPEN, or COMPLETED or FAILED if the answer arrived in time with the outcome.
        """

    def status(self, creator_task_id: str) -> Report:
        """Return the state of a job that the creator accepted."""

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """Return the states of many jobs, in as few requests as possible.

        Args:
            creator_task_ids: jobs that the creator accepted.
            since: none of them was submitted before; a creator that lists newest first can stop there.

        Returns:
            A report for each job whose state is known. Jobs that are omitted are queried with :meth:`status`, so a
            creator without a bulk query returns ``{}``.
        """

    def result(self, creator_task_id: str) -> Report:
        """Return the result of a job whose state is COMPLETED."""

    def cancel(self, creator_task_id: str) -> None:
        """Request the cancellation of a job; best effort."""
