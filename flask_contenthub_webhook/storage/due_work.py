"""The statement by which an idle process sees in one look whether anything is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from .forwards import Outbox
    from .store import Store

__all__ = ["DueWork", "read_due_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """The earliest time of each kind of work, past or to come; None where nothing waits.

    Args:
        poll: of the tasks to ask the creator about.
        submit: of the tasks to hand over.
        delivery: of the deliveries in the inbox.
        forward: of the forwards to send.
        last_delivery: the id of the newest row of the history; None if it is empty.
    """

    poll: datetime | None
    submit: datetime | None
    delivery: datetime | None
    forward: datetime | None
    last_delivery: int | None


def read_due_work(tx: sa.Connection, store: Store, outbox: Outbox) -> DueWork:
    """Read the first entries of the indexes of what waits, with one statement, and the time of the database."""
    tasks, deliveries, forwards = store.tasks.columns, store.deliveries.columns, outbox.forwards.columns
    firsts = {
        "poll": _first(tasks["next_poll_at"]),
        "submit": _first(tasks["next_submit_at"]),
        "delivery": _first(deliveries["next_retry_at"]),
        "forward": _first(forwards["next_try_at"]),
        "last_delivery": sa.select(sa.func.max(deliveries["id"])).scalar_subquery(),
    }
    values = store.clock.read_with(tx, [value.label(name) for name, value in firsts.items()])
    return DueWork(**dict(zip(firsts, values, strict=True)))


def _first(due: Any) -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.min(due)).where(due.is_not(None)).scalar_subquery()
