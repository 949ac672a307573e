"""Callbacks of services that report in their own words: read, matched with their tasks, kept if that fails.

The request is believed already. The creator translates it, with no transaction open, and its report is applied like any
other event. What the history keeps of a callback is enough to translate it again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.canonical import message_digest
from ..core.events import Custom, Event
from ..core.received import Outcome, ReceivedEvent, Row, Source
from ..core.signatures import SCHEMES
from ..core.state_machine import Verdict
from ..core.strict_json import parse_object
from ..creators.protocol import Callback, RemoteState, Report
from ..errors import (
    CreatorError,
    EventUnreadable,
    InvalidPayload,
    ReplayRefused,
    RequestRefused,
    TaskMismatch,
    TaskNotFound,
)
from ..storage.database_errors import not_stored
from ..storage.delivery_rows import delivery_values
from ..storage.sender_queries import find_by_job, is_in_call
from .accept import defer
from .patience import PATIENCE, in_time
from .process import process
from .reports import event_of
from .task_changes import submission_lease

if TYPE_CHECKING:
    from ..creators.registry import Registered
    from ..runtime.state import WebhookState

__all__ = ["Ignored", "NotOurs", "OwnWords", "is_in_own_words", "receive", "restore", "unread_event"]

_LATE = "The creator did not read the callback in time."
_NOT_OURS = "The event is about no job of this application."
_UNREAD = "unread"

T = TypeVar("T")


class NotOurs(ReplayRefused):
    """The event is about no job of this application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWords:
    """A believed callback of a service in its own words.

    Args:
        sender: the creator whose service sent it.
        body: the raw bytes.
        headers: the request's, secrets redacted.
        received_at: when it was accepted.
        remote_addr: the client's address.
        message_id: the service's id of the message.
        task_id: the task in the URL; None for the URL of a whole project.
        attempt: the attempt in the URL.
        task_is_authenticated: True if the URL's token vouches for both.
    """

    sender: Registered
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    received_at: datetime
    remote_addr: str | None
    message_id: str | None
    task_id: str | None = None
    attempt: int | None = None
    task_is_authenticated: bool = False

    def received(self, task_id: str, event: Event, attempt: int | None) -> ReceivedEvent:
        """Return the event as it is applied."""
        return ReceivedEvent(
            task_id=task_id,
            event=event,
            source=Source.WEBHOOK,
            received_at=self.received_at,
            attempt=attempt,
            task_is_authenticated=True,
            is_vouched_for=True,
            scheme=self.sender.name,
            message_id=self.message_id,
            digest=_digest(self.body),
            body=self.body,
            headers=self.headers,
            remote_addr=self.remote_addr,
        )


@dataclass(frozen=True, slots=True)
class Ignored:
    """The record of an event that is about no job of this application."""

    delivery_id: int
    task_id: str | None
    reason: str = _NOT_OURS


def receive(state: WebhookState, words: OwnWords) -> Outcome | Ignored:
    """Apply a new callback, or store it for a worker; keep it if its creator cannot read it now.

    Raises:
        EventUnreadable: it cannot be read, or matched with its task, now, and no token vouches for its task.
        RequestRefused: see :func:`_read` and :func:`.process.process`.
    """
    try:
        received = _read(state, words, patience=PATIENCE)
    except CreatorError as error:
        task_id = _vouched_task(words)
        if task_id is None:
            raise EventUnreadable from error
        return defer(state, _unread(words, task_id), f"The creator could not read it: {error.message}")
    return _ignore(state, words) if received is None else process(state, received)


def is_in_own_words(row: Row) -> bool:
    """Tell whether a history row has a callback that its creator translates."""
    return row["scheme"] is not None and row["scheme"] not in SCHEMES


def restore(state: WebhookState, row: Row, *, replayed_at: datetime | None = None) -> ReceivedEvent:
    """Translate the callback of a history row again.

    Raises:
        NotOurs: it is about no job of this application.
        ReplayRefused: its creator is no longer configured.
        CreatorError: the creator cannot read it now.
        RequestRefused: it cannot be matched with its task.
    """
    words = _words_of(state, row, replayed_at)
    received = _read(state, words)
    if received is None:
        raise NotOurs
    is_replay = replayed_at is not None
    return dataclasses.replace(
        received,
        source=Source.REPLAY if is_replay else Source(row["source"]),
        replay_of=row["id"] if is_replay else row["replay_of"],
        from_history=True,
    )


def unread_event(state: WebhookState, row: Row) -> ReceivedEvent:
    """Return what is known of a history row that could not be translated, to record that it failed once more."""
    return _unread(_words_of(state, row, None), row["task_id"] or "")


def _words_of(state: WebhookState, row: Row, replayed_at: datetime | None) -> OwnWords:
    sender = state.registry.sender(row["scheme"])
    if sender is None or not sender.reads:
        raise ReplayRefused(
            f"Delivery {row['id']} is in the words of {row['scheme']}, and no such creator is there now."
        )
    was_believed = row["task_id"] is not None and row["verdict"] != Verdict.REJECTED
    return OwnWords(
        sender=sender,
        body=bytes(row["body"] or b""),
        headers=row["headers"] or {},
        received_at=row["received_at"] if replayed_at is None else replayed_at,
        remote_addr=row["remote_addr"],
        message_id=row["message_id"],
        task_id=row["task_id"],
        attempt=row["attempt"] if was_believed else None,
        task_is_authenticated=was_believed,
    )


def _unread(words: OwnWords, task_id: str) -> ReceivedEvent:
    event = Custom(type=_UNREAD, task_id=task_id, occurred_at=None, payload={})
    return words.received(task_id, event, words.attempt if words.task_is_authenticated else None)


def _vouched_task(words: OwnWords) -> str | None:
    """Return the task to keep a callback under: a history row that has one counts as authenticated later."""
    return words.task_id if words.task_is_authenticated else None


def _ignore(state: WebhookState, words: OwnWords) -> Ignored:
    def write(tx: Connection) -> int:
        now, ahead = state.store.clock.now_and_ahead(tx)
        values = delivery_values(_unread(words, ""), "", now, ahead=ahead)
        values |= {"event": None, "task_id": _vouched_task(words), "late": False, "tries": 0}
        values |= {"verdict": Verdict.IGNORED.value, "reason": _NOT_OURS}
        return int(state.store.insert_delivery(tx, values)["id"])

    ignored = Ignored(_in_database(lambda: state.database.write(write)), words.task_id)
    signals.send_quietly(signals.event_handled, state.app, received=_unread(words, ""), verdict=Verdict.IGNORED)
    return ignored


# --- reading -------------------------------------------------------------------------------------------------


def _read(state: WebhookState, words: OwnWords, *, patience: float | None = None) -> ReceivedEvent | None:
    """Translate a callback and find its task; None if it is about no job of this application.

    Raises:
        CreatorError: the creator cannot read it now.
        TaskNotFound: the URL's task does not exist.
        TaskMismatch: the URL's task was submitted to another creator, or the event is about a job of another task.
        InvalidPayload: the report names neither a task nor a job, and neither does the URL.
        EventUnreadable: the job may be one whose submission is not answered yet.
    """
    task = None
    if words.task_id is not None:
        task = _ask(state, lambda tx: state.store.read_task(tx, str(words.task_id)))
        if task is None:
            raise TaskNotFound
        if state.registry.of(task["creator_name"]) is not words.sender:
            raise TaskMismatch("The task was not submitted to this sender.")
    callback = Callback(headers=words.headers, body=words.body)
    service = state.guarded(words.sender)
    report = in_time(lambda: service.read_callback(callback), patience, late=_LATE)
    if report is None:
        return None
    if task is not None:
        _check_is_about(state, words, report, task)
    else:
        task = _find(state, words.sender, report)
    if task is None:
        return None
    if report.state is RemoteState.OPEN and report.progress is None:
        report = dataclasses.replace(report, progress={})
    name = report.creator_task_id or task["task_id"]
    event = event_of(report, name, words.sender.settings.required_result_fields)
    return None if event is None else words.received(task["task_id"], event, _attempt(words, report, task))


def _check_is_about(state: WebhookState, words: OwnWords, report: Report, task: Row) -> None:
    """Check that an event is about the task of its URL."""
    job, names = report.creator_task_id, {task["creator_task_id"], *(task["earlier_creator_task_ids"] or ())}
    if report.task_id not in {None, task["task_id"]}:
        raise TaskMismatch
    if job in names or report.task_id is not None:
        return
    if not words.task_is_authenticated:
        raise TaskMismatch
    if job is not None and task["submitting_since"] is None:
        other = _by_job(state, words.sender, job)
        if other is not None and other["task_id"] != task["task_id"]:
            raise TaskMismatch


def _find(state: WebhookState, sender: Registered, report: Report) -> Row | None:
    """Return the task that an event to a whole project is about; None if it was submitted to nobody, or another."""
    job, ours = report.creator_task_id, report.task_id
    if job is None and ours is None:
        raise InvalidPayload("The event names no job.")
    if ours is not None:
        task = _ask(state, lambda tx: state.store.read_task(tx, ours))
        if task is not None and state.registry.of(task["creator_name"]) is sender:
            return task
    if job is None:
        return None
    if (task := _by_job(state, sender, job)) is not None:
        return task
    names, longest = state.registry.columns_of(sender), submission_lease(state.settings)

    def in_call(tx: Connection) -> bool:
        return is_in_call(tx, state.store.tasks, creators=names, since=state.store.now(tx) - longest)

    if _ask(state, in_call) and state.early_events.failed(job, state.waited()) is None:
        raise EventUnreadable
    return _by_job(state, sender, job)  # it may have been answered in between


def _by_job(state: WebhookState, sender: Registered, job: str) -> Row | None:
    names = state.registry.columns_of(sender)
    return _ask(state, lambda tx: find_by_job(tx, state.store.tasks, job, creators=names))


def _attempt(words: OwnWords, report: Report, task: Row) -> int | None:
    """Return the attempt that an event belongs to: by its URL, else by its job, else by what it says itself."""
    job, earlier, current = report.creator_task_id, list(task["earlier_creator_task_ids"] or ()), int(task["attempt"])
    if words.task_is_authenticated and words.attempt is not None:
        return words.attempt
    if job is not None and job == task["creator_task_id"]:
        return current
    if job in earlier:
        return current - len(earlier) + earlier.index(job)
    if report.attempt is not None or job is None:
        return report.attempt
    is_known = task["submitting_since"] is None and task["creator_task_id"] is not None
    return current - 1 if is_known else current  # the current job, if there is one, has another name


def _digest(body: bytes) -> str:
    try:
        return message_digest(parse_object(body), size=len(body))
    except RequestRefused:
        return hashlib.sha256(body).hexdigest()


def _ask(state: WebhookState, work: Callable[[Connection], T]) -> T:
    return _in_database(lambda: state.database.ask(work))


def _in_database(work: Callable[[], T]) -> T:
    try:
        return work()
    except SQLAlchemyError as error:
        raise not_stored(error) from error
