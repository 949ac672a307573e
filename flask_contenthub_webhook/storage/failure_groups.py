"""Deliveries that the handlers failed at, grouped by handler and exception, and the acknowledgements of these groups.

An acknowledgement is a row of the table of alerts: ``failure:DIGEST``, with who and when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ..core.redaction import storable
from ..core.state_machine import Verdict
from .drivers import MYSQL
from .notes import keep_note
from .queries import Reading, Row
from .transactions import Database

__all__ = ["ACKNOWLEDGED", "Acknowledgement", "acknowledge", "digest_of", "read_acknowledgements", "read_groups"]

ACKNOWLEDGED = "failure:"
"""The beginning of the names of acknowledgements."""
_LONGEST = 200
_MOST_GROUPS = 100
_MOST_NAME = 255


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who acknowledged the failures of a group, and when."""

    by: str
    at: datetime


def read_groups(read: Reading, model: Any, conditions: Sequence[sa.ColumnElement[bool]]) -> list[Row]:
    """Count failed and dead deliveries by ``failure``, such as ``publish: RuntimeError``, the latest failure first.

    Each has ``failed``, ``dead``, ``tries``, ``tasks``, ``first`` and ``last`` (when they were received), and the id
    ``newest``.

    Args:
        read: the transaction.
        model: the delivery model.
        conditions: for the deliveries, which must be few.
    """
    text = sa.func.substr(sa.func.coalesce(model.error, model.reason, ""), 1, _LONGEST)
    rows = sa.select(
        _failure(text, read.dialect).label("failure"),
        model.id,
        model.task_id,
        model.verdict,
        model.received_at,
        model.tries,
    ).where(*conditions)
    found = rows.subquery()
    counts = {
        verdict.value: sa.func.count(sa.case((found.c.verdict == verdict.value, 1)))
        for verdict in (Verdict.FAILED, Verdict.DEAD)
    }
    query = (
        sa.select(
            found.c.failure,
            *(count.label(name) for name, count in counts.items()),
            sa.func.sum(found.c.tries).label("tries"),
            sa.func.count(found.c.task_id.distinct()).label("tasks"),
            sa.func.min(found.c.received_at).label("first"),
            sa.func.max(found.c.received_at).label("last"),
            sa.func.max(found.c.id).label("newest"),
        )
        .group_by(found.c.failure)
        .order_by(sa.func.max(found.c.id).desc())
        .limit(_MOST_GROUPS)
    )
    return read.rows(query)


def _failure(text: sa.ColumnElement[str], dialect: str) -> sa.ColumnElement[str]:
    """Return a text up to its second colon: the handler and the class of its exception."""
    if dialect in MYSQL:
        return sa.func.substring_index(text, ": ", 2)
    if dialect == "postgresql":
        handler, error = (sa.func.split_part(text, ": ", part) for part in (1, 2))
        return sa.case((error == "", handler), else_=handler.concat(": ").concat(error))
    first = sa.func.instr(text, ": ")
    rest = sa.func.substr(text, first + 2)
    second = sa.func.instr(rest, ": ")
    return sa.case((sa.or_(first == 0, second == 0), text), else_=sa.func.substr(text, 1, first + second))


# --- acknowledgements ----------------------------------------------------------------------------------------


def read_acknowledgements(rows: Mapping[str, Row], failures: Sequence[str]) -> dict[str, Acknowledgement]:
    """Return the acknowledgements of failures, by failure.

    Args:
        rows: of the table of alerts, by name.
        failures: as of :func:`read_groups`.
    """
    named = {failure: rows.get(ACKNOWLEDGED + digest_of(failure)) for failure in failures}
    return {
        failure: Acknowledgement(row["acknowledged_by"] or "", row["changed_at"])
        for failure, row in named.items()
        if row is not None and row["changed_at"] is not None
    }


def acknowledge(database: Database, model: type[Any], digest: str, *, by: str) -> None:
    """Acknowledge what a group of failures has now; those that come later are new.

    Args:
        database: the application's database.
        model: the model of alerts.
        digest: of the failure, as of :func:`digest_of`.
        by: who acknowledges it.

    Raises:
        SQLAlchemyError: the database is down.
    """
    keep_note(database, model, ACKNOWLEDGED + digest, acknowledged_by=storable(by)[:_MOST_NAME])


def digest_of(failure: str) -> str:
    """Return what names a failure in a form and in a row; its own words may be long, or hold secrets."""
    return hashlib.sha256(failure.encode("utf-8", "backslashreplace")).hexdigest()[:40]
