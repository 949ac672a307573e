"""Forwards, read-only: those of one delivery, and all by state and by URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...core.redaction import redacted, redacted_body
from ...storage.queries import Reading, Row, count_where, id_of, select_all
from .bodies import MOST_READ, Shown, show_body
from .search import Page, Search, read_page
from .windows import EVERYTHING, MOST_ROWS, Lane

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = [
    "STATES",
    "ForwardDetails",
    "columns_of",
    "forwards_by_url",
    "forwards_of",
    "read_forward",
    "read_forwards_page",
    "shown",
    "url_of",
]

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
_MOST_TRIES = 50


@dataclass(frozen=True, slots=True)
class ForwardDetails:
    """A forward with everything that its page shows.

    Args:
        row: its columns without the body, redacted.
        body: what is sent.
        attempts: its newest tries, oldest first, with the headers that were sent and what was answered.
    """

    row: Row
    body: Shown
    attempts: list[Row]


def read_forward(read: Reading, state: WebhookState, forward_id: int) -> ForwardDetails | None:
    """Read a forward with its tries; None if there is none."""
    forward, attempt = state.models.forward, state.models.forward_attempt
    row = read.row(
        sa.select(
            *columns_of(forward),
            forward.resent_at,
            forward.resent_by,
            sa.func.length(forward.body).label("size"),
            sa.func.substr(forward.body, 1, MOST_READ).label("beginning"),
        ).where(id_of(forward) == forward_id)
    )
    if row is None:
        return None
    beginning, size = redacted_body(bytes(row.pop("beginning") or b"")), row.pop("size") or 0
    tries = (
        select_all(attempt, without={"id", "forward_id"})
        .where(attempt.forward_id == row["id"])
        .order_by(attempt.id.desc())
        .limit(_MOST_TRIES)
    )
    size = len(beginning) if size <= MOST_READ else size
    return ForwardDetails(shown(row), show_body(beginning, size), [shown(one) for one in read.rows(tries)][::-1])


def forwards_of(read: Reading, state: WebhookState, delivery_id: int) -> list[Row]:
    """Read the forwards of a delivery, each with its ``attempts``, oldest first."""
    forward, attempt = state.models.forward, state.models.forward_attempt
    rows = read.rows(
        sa.select(*columns_of(forward))
        .where(forward.delivery_id == delivery_id)
        .order_by(forward.id)
        .limit(_MOST_OF_ONE)
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
        {**shown(row), "attempts": [entry for entry in attempts if entry["forward_id"] == row["id"]]} for row in rows
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
    page = read_page(read, search, EVERYTHING, columns_of(forward), time=forward.created_at, before=before, after=after)
    page.rows[:] = [shown(row) for row in page.rows]
    return page


def url_of(read: Reading, state: WebhookState, forward_id: int) -> str | None:
    """Return the URL of a forward with its secrets: to search for the same URL, never to show it."""
    forward = state.models.forward
    row = read.first(sa.select(forward.url).where(id_of(forward) == forward_id))
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
    return [shown(row) for row in read.rows(query)]


def columns_of(forward: Any) -> list[Any]:
    """Return the columns of a list."""
    return [getattr(forward, key).label(key) for key in _SHOWN]


def shown(row: Row) -> Row:
    """Return a row without its secrets."""
    return redacted(row)  # type: ignore[no-any-return]
