"""Where in the history a moment is: ids grow with time, so the primary key finds it, and no index on times is needed.

::

    lately = received(session, Delivery, after=an_hour_ago)
    dead = session.scalar(sa.select(sa.func.count()).where(*lately, Delivery.verdict == "dead"))
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

__all__ = ["DISORDER", "first_id_since", "received", "search_id"]

DISORDER = timedelta(minutes=2)
"""How far ids and times may disagree: a row gets its id when it is written, which is after it was received (a handler
takes its time, a missing result is fetched first), and the clocks of two machines are never quite the same."""


_MARGIN = 500
"""Ids that are looked at beyond that; it costs nothing, and forgives a host that writes rows with times of its own."""


def received(
    session: Session, model: type[Any], *, after: datetime, until: datetime | None = None
) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions for the deliveries of a time, made so that a statement reads them and hardly any others.

    Costs one small statement for each end, see :func:`first_id_since`.

    Args:
        session: for the search.
        model: the delivery model, or any with ``id`` and ``received_at``.
        after: received later than this time; a time that ends where another begins shares nothing with it.
        until: received at this time, or before.
    """
    first = first_id_since(session, model, after - DISORDER) - _MARGIN
    conditions = [model.id >= first, model.received_at > after]
    if until is not None:
        end = first_id_since(session, model, until + DISORDER) + _MARGIN
        conditions += [model.id < end, model.received_at <= until]
    return tuple(conditions)


def first_id_since(session: Session, model: type[Any], moment: datetime) -> int:
    """The id at which a moment is: smaller ones are older. Beyond the last row where all are older; 0 without any rows.

    One statement, in which the database itself halves the range of ids again and again: some twenty look-ups in the
    primary key for a million rows. It takes ids and times to be in the same order; where they are not, it is off by as
    much as they are, which :func:`received` allows for.

    Args:
        session: for the search.
        model: the delivery model, or any with ``id`` and ``received_at``.
        moment: an aware time.
    """
    found = session.scalar(search_id(model, moment), bind_arguments={"mapper": sa.inspect(model)})
    return 0 if found is None else int(found)


def search_id(model: type[Any], moment: datetime, name: str = "ranges") -> sa.Select[Any]:
    """The statement of :func:`first_id_since`, under a name of its own where another statement holds several.

    Each row of the recursion is a range, ``width`` ids from ``first`` on, that the answer is in or right behind.

    The upper half is taken where the row in the middle, or the first one behind a gap there, is too old.
    """
    # Two selects: SQLite takes min() and max() from the index only where each stands alone.
    lowest, highest = (sa.select(end(model.id)).scalar_subquery() for end in (sa.func.min, sa.func.max))
    ranges = sa.select(lowest.label("first"), (highest - lowest + 1).label("width")).cte(name, recursive=True)
    first, width = ranges.c.first, ranges.c.width
    half = width - width // 2
    middle = sa.select(model.received_at).where(model.id >= first + half - 1).order_by(model.id).limit(1)
    narrower = sa.select(sa.case((middle.scalar_subquery() < moment, first + half), else_=first), width // 2).where(
        width > 0
    )
    ranges = ranges.union_all(narrower)
    return sa.select(ranges.c.first).where(ranges.c.width == 0)
