"""Forwards, read-only: those of one delivery, and all by state and by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...core.redaction import redacted
from ...storage.queries import Reading, Row, count_where
from .search import Page, Search, read_page
from .windows import EVERYTHING, MOST_ROWS, Lane

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["STATES", "forwards_by_url", "forwards_of", "read_forwards_page", "url_of"]

STATES = ("waiting", "delivered", "dead")
_MOST_OF_ONE = 50
_MOST_ATTEMPTS = 500
_MOST_URLS = 50
_SHOWN = (
    "id",
    "delivery_id",
    "task_id",
    "event",
    "url",
    "message_id",
    "status",
    "tries",
    "next_try_at",
    "created_at",
    "finished_at",
)
_SHOWN_OF_ATTEMPT = ("forward_id", "number", "started_at", "duration_ms", "address", "status_code")
_BRIEF = 500


def forwards_of(read: Reading, state: WebhookState, delivery_id: int) -> list[Row]:
    """Read the forwards of a delivery, each with its ``attempts``, oldest first."""
    forward, attempt = state.models.forward, state.models.forward_attempt
    rows = read.rows(
        sa.select(*_columns(forward)).where(forward.delivery_id == delivery_id).order_by(forward.id).limit(_MOST_OF_ONE)
    )
    if not rows:
        return []
    attempts = read.rows(
        sa.select(
            *(getattr(attempt, key).label(key) for key in _SHOWN_OF_ATTEMPT),
            sa.func.substr(attempt.error, 1, _BRIEF).label("error"),
        )
        .where(attempt.forward_id.in_([row["id"] for row in rows]))
        .order_by(attempt.forward_id, attempt.id)
        .limit(_MOST_ATTEMPTS)
    )
    return [
        {**_shown(row), "attempts": [entry for entry in attempts if entry["forward_id"] == row["id"]]} for row in rows
    ]


def read_forwards_page(
    read: Reading, state: WebhookState, *, status: str, url: str | None, before: int | None, after: int | None
) -> Page:
    """Read a page of forwards, newest first.

    Args:
        read: the transaction.
        state: the application's state.
        status: one of :data:`STATES`, or an empty string for all.
        url: only forwards to this URL, or None.
        before: read the nearest smaller ids.
        after: read the nearest greater ids.
    """
    forward = state.models.forward
    conditions = [forward.status == status] if status else []
    if url is not None:
        conditions.append(forward.url == url)
    search = Search(read, forward, Lane(read, forward, down=after is None), conditions)
    page = read_page(read, search, EVERYTHING, _columns(forward), time=forward.created_at, before=before, after=after)
    page.rows[:] = [_shown(row) for row in page.rows]
    return page


def url_of(read: Reading, state: WebhookState, forward_id: int) -> str | None:
    """Return the URL of a forward with its secrets: to search for the same URL, never to show it."""
    forward = state.models.forward
    row = read.first(sa.select(forward.url).where(forward.id == forward_id))
    return None if row is None else str(row[0])


def forwards_by_url(read: Reading, state: WebhookState) -> list[Row]:
    """Count the newest forwards of each ``url`` by state: ``waiting``, ``delivered``, ``dead``.

    ``like`` is the id of a forward to the URL; links use it in place of the URL, which may hold secrets.
    """
    forward = state.models.forward
    is_new = forward.id > sa.select(sa.func.max(forward.id)).scalar_subquery() - MOST_ROWS
    query = (
        sa.select(
            forward.url.label("url"),
            sa.func.max(forward.id).label("like"),
            *(count_where(forward.status == status).label(status) for status in STATES),
        )
        .where(is_new)
        .group_by(forward.url)
        .order_by(sa.func.count().desc(), sa.func.max(forward.id).desc())
        .limit(_MOST_URLS)
    )
    return [_shown(row) for row in read.rows(query)]


def _columns(forward: Any) -> list[Any]:
    return [getattr(forward, key).label(key) for key in _SHOWN]


def _shown(row: Row) -> Row:
    return redacted(row)  # type: ignore[no-any-return]
