"""Find delivery ids by time: ids grow with time, so the primary key is bisected, and no index on times is needed.

::

    recent = received_within(session, Delivery, after=an_hour_ago)
    dead = session.scalar(sa.select(sa.func.count()).where(*recent, Delivery.verdict == "dead"))
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

__all__ = ["DISORDER", "first_id_since", "received_within", "search_id"]

DISORDER = timedelta(minutes=2)
"""Greatest disorder of ids and times: a row gets its id when it is written, some time after it was received, and the
clocks of two machines differ."""

_MARGIN = 500
"""Further ids to read, which costs nothing, for hosts that write rows with other times."""


def received_within(
    session: Session, model: type[Any], *, after: datetime, until: datetime | None = None
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return conditions for the deliveries of a period, with which a statement reads hardly any others.

    ``after`` is exclusive, and ``until`` inclusive. Costs one small statement for each, see :func:`first_id_since`.
    """
    first = first_id_since(session, model, after - DISORDER) - _MARGIN
    conditions = [model.id >= first, model.received_at > after]
    if until is not None:
        end = first_id_since(session, model, until + DISORDER) + _MARGIN
        conditions += [model.id < end, model.received_at <= until]
    return tuple(conditions)


def first_id_since(session: Session, model: type[Any], moment: datetime) -> int:
    """Return the id below which all rows are older than a moment; 0 if there are no rows.

    One statement, in which the database bisects the range of ids: some twenty look-ups in the primary key for a million
    rows. The more ids and times disagree, the less exact it is, which :func:`received_within` allows for.
    """
    return int(session.scalar(search_id(model, moment), bind_arguments={"mapper": sa.inspect(model)}) or 0)


def search_id(model: type[Any], moment: datetime, name: str = "ranges") -> sa.Select[Any]:
    """Return the statement of :func:`first_id_since`; several in one statement need different names.

    Each row of the recursion is a range of ``width`` ids from ``first`` on, which contains the answer or ends right
    before it. The upper half is next if the row in the middle, or the first one behind a gap there, is too old.
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
