"""Rows that are printed as they come, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ..core.redaction import redacted
from ..storage.queries import FilteredRows, Row
from .documents import print_line
from .tables import Listing
from .terminal import Screen

__all__ = ["follow_rows"]

_PAUSE = 1.0
"""Seconds between two looks."""
_MARGIN = 1000
"""Ids behind the newest that are looked at again: transactions do not commit in the order of their ids, and the verdict
of an event changes when a worker applies it."""


def follow_rows(rows: FilteredRows, listing: Listing, *, limit: int, wide: bool, as_json: bool) -> None:
    """Print the newest rows, oldest first, and then what is new, until Ctrl-C.

    Args:
        rows: deliveries.
        listing: their columns.
        limit: the number of rows to begin with.
        wide: one line for each row.
        as_json: one JSON document a line instead of columns.
    """
    known: set[tuple[int, str]] = set()
    newest = rows.newest_id()
    first = _unseen(rows.page(limit=limit), known)
    floor = first[0]["id"] - 1 if len(first) == limit else 0
    add: Callable[[Row], None] = print_line
    if as_json:
        for row in first:
            add(row)
    else:
        add = Screen(wide=wide).listing(listing, first)
    try:
        while True:
            time.sleep(_PAUSE)
            after, newest = max(floor, newest - _MARGIN), rows.newest_id()
            for row in _news(rows, after, known):
                add(row)
    except KeyboardInterrupt:
        return


def _news(rows: FilteredRows, after: int, known: set[tuple[int, str]]) -> Iterator[Row]:
    """Yield rows that are new, or whose verdict is, oldest first."""
    known.difference_update([entry for entry in known if entry[0] <= after])
    yield from _unseen(rows.page(after=after, limit=10 * _MARGIN), known)


def _unseen(page: Sequence[Row], known: set[tuple[int, str]]) -> list[Row]:
    """Return the rows of a page that are not known, oldest first; now they are."""
    unseen = [row for row in reversed(page) if (row["id"], row["verdict"]) not in known]
    known |= {(row["id"], row["verdict"]) for row in unseen}
    return [redacted(row) for row in unseen]
