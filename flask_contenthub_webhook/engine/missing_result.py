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
    """Return the event with the result that it lacked; as it came if none is missing, or the creator has none.

    The task's creator decides what is missing, wherever the event was parsed.

    Args:
        state: the application's state.
        received: any event.
        patience: seconds to wait for the creator; None waits for as long as its calls take.

    Raises:
        CreatorError: the creator cannot be asked now; the event should be tried again later.
        DatabaseUnavailable: the task could not be read.
        InvalidPayload: a field that the task's creator requires is of the wrong type.
    """
    task = _read_task(state, received) if _may_lack_fields(state, received) else None
    if task is None:
        return received
    fields = state.settings_for(task).required_result_fields
    if state.registry.fields_differ:
        received = dataclasses.replace(received, event=parse_event(received.event.payload, required_fields=fields))
    event = received.event
    if not isinstance(event, Completed) or not event.missing:
        return received
    name = None if task["status"] == TaskState.COMPLETED else _name_of(task, received)
    service = None if name is None else state.service_of(task)
    if name is None or service is None:  # completed or another task's: applying the event says so
        return received
    if received.source is Source.REPLAY:
        service.pause.lift()
    fetched = in_time(lambda: _fetch(service, name, event), patience, late=_LATE)
    try:
        check_value(fetched)
        parsed = parse_event({**event.payload, "result": fetched}, required_fields=fields)
    except RequestRefused:
        return received
    return dataclasses.replace(received, event=parsed)


def _may_lack_fields(state: WebhookState, received: ReceivedEvent) -> bool:
    event = received.event
    if state.creator is None or not isinstance(event, Completed):
        return False
    was_parsed_by_its_creator = received.is_vouched_for and not received.from_history
    return bool(event.missing) or (state.registry.fields_differ and not was_parsed_by_its_creator)


def _read_task(state: WebhookState, received: ReceivedEvent) -> Row | None:
    try:
        return state.database.ask(
            lambda tx: state.store.read_task(tx, received.task_id, id_may_be_creators=received.id_may_be_creators)
        )
    except SQLAlchemyError as error:
        raise unavailable(error) from error


def _name_of(task: Row, received: ReceivedEvent) -> str | None:
    """Return the creator's id for the event's attempt; None for an id that we did not submit."""
    current: str | None = task["creator_task_id"]
    earlier, named = list(task["earlier_creator_task_ids"] or ()), received.event.task_id
    if named in {current, *earlier}:
        return named
    if not received.task_is_authenticated and named != task["task_id"]:
        return None
    back = 0 if received.attempt is None else int(task["attempt"]) - received.attempt
    if back <= 0:
        return current
    return earlier[-back] if back <= len(earlier) else None


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
