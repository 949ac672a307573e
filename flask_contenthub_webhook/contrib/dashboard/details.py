"""Everything about a delivery or a task; long values are cut when they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...core.redaction import redacted, redacted_body, redacted_content, redacted_task
from ...core.state_machine import Verdict
from ...models.delivery import DeliveryMixin
from ...models.task import GenerationTaskMixin
from ...storage.drivers import MYSQL
from ...storage.queries import Reading, Row, id_of
from .bodies import MOST_READ, Shown, show_body, show_json
from .forwards import forwards_of
from .listing import columns
from .search import Page, Search, read_page
from .tries import Try, answer_of, tries_of
from .windows import EVERYTHING, Lane

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["DeliveryDetails", "Step", "TaskDetails", "read_delivery_details", "read_task_details", "timeline"]

_MOST_LATER = 2_000
"""Deliveries of a task that are searched for the replays of one of them."""
_MOST_TEXT = 20_000
_DELIVERY_KEYS = tuple(key for key in DeliveryMixin.__annotations__ if key != "body")
_TASK_TEXTS = ("requirements", "error_message")
_TASK_DOCUMENTS = ("creator_options", "forward_to", "progress", "result")
_TASK_KEYS = tuple(key for key in GenerationTaskMixin.__annotations__ if key not in {*_TASK_TEXTS, *_TASK_DOCUMENTS})
_FROM_OTHERS = {"progress", "result"}
"""Sent by the creator; the other documents are the host's own, and may hold its secrets."""


# --- a delivery ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeliveryDetails:
    """A delivery with everything that its page shows.

    Args:
        row: its columns without the body.
        beginning: of its body, at most :data:`.bodies.MOST_READ` bytes.
        size: bytes of the whole body.
        body: the body as it is shown, or None.
        task: some columns of its task, or None.
        replays: the deliveries that replayed it.
        forwards: its forwards.
        tries: the runs of the handlers.
        answer: what its sender was answered, or None.
    """

    row: Row
    beginning: bytes
    size: int
    body: Shown | None
    task: Row | None
    replays: list[Row]
    forwards: list[Row]
    tries: list[Try]
    answer: str | None


def read_delivery_details(read: Reading, state: WebhookState, delivery_id: int) -> DeliveryDetails | None:
    """Read a delivery and all that belongs to it in six statements; None if there is no such delivery."""
    model, task = state.delivery_model, state.task_model
    row = read.row(
        sa.select(
            *(getattr(model, key).label(key) for key in _DELIVERY_KEYS),
            sa.func.length(model.body).label("body_size"),
            sa.func.substr(model.body, 1, MOST_READ).label("beginning"),
        ).where(id_of(model) == delivery_id)
    )
    if row is None:
        return None
    raw, size = bytes(row.pop("beginning") or b""), row.pop("body_size") or 0
    beginning = redacted_body(raw)
    size = len(beginning) if len(raw) == size else size
    keys = ("task_id", "status", "attempt", "topic")
    about = sa.select(*(getattr(task, key).label(key) for key in keys)).where(task.task_id == row["task_id"])
    shown = redacted(row)
    return DeliveryDetails(
        row=shown,
        beginning=beginning,
        size=size,
        body=show_body(beginning, size) if size else None,
        task=None if row["task_id"] is None else read.row(about),
        replays=_replays(read, model, row),
        forwards=forwards_of(read, state, delivery_id),
        tries=tries_of(shown),
        answer=answer_of(shown),
    )


def _replays(read: Reading, model: Any, row: Row) -> list[Row]:
    """Read the replays of a delivery, which are later deliveries of its task; only the nearest are searched."""
    if row["task_id"] is None:
        return []
    later = (
        sa.select(model.id)
        .where(model.task_id == row["task_id"], model.id > row["id"])
        .order_by(model.id)
        .limit(_MOST_LATER)
        .subquery()
    )
    query = (
        sa.select(*columns(model))
        .where(model.id.in_(sa.select(later.c.id)), model.replay_of == row["id"])
        .order_by(model.id)
        .limit(20)
    )
    return read.rows(query)


# --- a task --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskDetails:
    """A task with everything that its page shows.

    Args:
        row: its columns, redacted.
        documents: its long texts and JSON columns, as they are shown.
    """

    row: Row
    documents: dict[str, Shown]


def read_task_details(read: Reading, state: WebhookState, any_id: str) -> TaskDetails | None:
    """Read a task by our id or by the creator's; None if there is no such task."""
    model = state.task_model
    texts = {key: sa.cast(getattr(model, key), sa.Text()) for key in (*_TASK_TEXTS, *_TASK_DOCUMENTS)}
    length = sa.func.char_length if read.dialect in MYSQL else sa.func.length  # which counts bytes there
    query = sa.select(
        *(getattr(model, key).label(key) for key in _TASK_KEYS),
        *(sa.func.substr(text, 1, MOST_READ).label(key) for key, text in texts.items()),
        *(length(text).label(f"{key}_size") for key, text in texts.items()),
    )
    row = read.row(query.where(model.task_id == any_id)) or read.row(
        query.where(model.creator_task_id == any_id).order_by(model.id.desc()).limit(1)
    )
    if row is None:
        return None
    documents = {}
    for key in texts:
        text, size = row.pop(key), row.pop(f"{key}_size") or 0
        if text not in {None, "", "null"}:
            documents[key] = _document(key, text, size)
    return TaskDetails(redacted_task(row), documents)


def _document(key: str, text: str, size: int) -> Shown:
    is_whole = len(text) == size
    if key in _TASK_TEXTS or key in _FROM_OTHERS:
        return show_json(redacted_content(text), size, is_whole=is_whole)
    if not is_whole:  # what cannot be read cannot be redacted
        return show_json(f"({size:,} characters)", size, is_whole=True)
    return show_json(json.dumps(redacted(json.loads(text)), ensure_ascii=False), size, is_whole=True)


# --- its timeline --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A delivery in a task's timeline.

    Args:
        row: the delivery, as lists show it.
        gap: the time since the delivery before it, or None for the first.
        is_effect: it changed the task's state.
        new_attempt: the attempt, if this is its first delivery, or None.
    """

    row: Row
    gap: timedelta | None
    is_effect: bool
    new_attempt: int | None


def timeline(
    read: Reading, state: WebhookState, task_id: str, *, before: int | None, after: int | None
) -> tuple[list[Step], Page]:
    """Read a task's newest deliveries, or those next to a cursor, oldest first."""
    model = state.delivery_model
    is_of_task = model.task_id == task_id
    lane = Lane(read, model, down=after is None, branches=[(is_of_task,)])
    page = read_page(
        read,
        Search(read, model, lane, [is_of_task]),
        EVERYTHING,
        columns(model),
        time=model.received_at,
        before=before,
        after=after,
    )
    steps: list[Step] = []
    previous: datetime | None = None
    latest_attempt = 0
    for row in reversed(page.rows):
        attempt = row["attempt"] or 0
        steps.append(
            Step(
                row,
                gap=None if previous is None else row["received_at"] - previous,
                is_effect=row["verdict"] == Verdict.PROCESSED and row["status_before"] != row["status_after"],
                new_attempt=attempt if attempt > latest_attempt else None,
            )
        )
        previous, latest_attempt = row["received_at"], max(attempt, latest_attempt)
    return steps, page
