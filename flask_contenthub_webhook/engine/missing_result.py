"""Thin callbacks: fetch the result that a ``completed`` lacks from the creator, with no transaction open."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..core.events import Completed, parse_event
from ..core.received import ReceivedEvent, Source
from ..core.state_machine import TaskState
from ..core.strict_json import check_value
from ..creators.protocol import RemoteState
from ..errors import CreatorUnclear, RequestRefused
from ..storage.database_errors import unavailable
from .patience import in_time

if TYPE_CHECKING:
    from ..creators.guarded import GuardedCreator
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["fetch_missing_result"]

_LATE = "The callback says completed; the creator did not return its result in time."


def fetch_missing_result(
    state: WebhookState, received: ReceivedEvent, *, patience: float | None = None
) -> ReceivedEvent:
    """Return the event with the result that it lacked; unchanged if none is missing, or the creator has none.

    Args:
        state: the application's state.
        received: any event.
        patience: seconds to wait for the creator; None waits for as long as its calls take.

    Raises:
        CreatorError: the creator cannot be asked now; the event should be tried again later.
        DatabaseUnavailable: the task could not be read.
    """
    event = received.event
    if state.creator is None or not isinstance(event, Completed) or not event.missing:
        return received
    try:
        task = state.database.ask(
            lambda tx: state.store.read_task(tx, received.task_id, id_may_be_creators=received.id_may_be_creators)
        )
    except SQLAlchemyError as error:
        raise unavailable(error) from error
    name = None if task is None or task["status"] == TaskState.COMPLETED else _name_of(task, received)
    service = None if task is None or name is None else state.service_of(task)
    if (
        task is None or name is None or service is None
    ):  # unknown, completed or another task's: applying the event says so
        return received
    if received.source is Source.REPLAY:
        service.pause.lift()
    fetched = in_time(lambda: _fetch(service, name, event), patience, late=_LATE)
    try:
        check_value(fetched)
        parsed = parse_event(
            {**event.payload, "result": fetched}, required_fields=state.settings_for(task).required_result_fields
        )
    except RequestRefused:
        return received
    return dataclasses.replace(received, event=parsed)


def _name_of(task: Row, received: ReceivedEvent) -> str | None:
    """Return the creator's id for the event's attempt; None for an id that we did not submit."""
    current: str | None = task["creator_task_id"]
    named = received.event.task_id
    if named in {current, *(task["earlier_creator_task_ids"] or ())}:
        return named
    return current if received.task_is_authenticated or named == task["task_id"] else None


def _fetch(creator: GuardedCreator, name: str, event: Completed) -> dict[str, object]:
    report = creator.statuses([name]).get(name)
    if report is None:
        report = creator.status(name)
    if report.state is RemoteState.OPEN:
        raise CreatorUnclear("The callback says completed, but the creator has no result yet.")
    if report.state is not RemoteState.COMPLETED:
        return dict(event.result)
    if report.result is None:
        report = creator.result(name)
    return {**event.result, **(report.result or {})}
