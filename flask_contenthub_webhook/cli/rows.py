"""Lists and details of history rows, alike for `deliveries`, `forwards` and `tasks`."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import click

from ..core.redaction import redacted
from ..storage.queries import FilteredRows, Row
from .documents import print_document
from .parameters import limit_option, wide_option, with_options
from .tables import Listing
from .terminal import Screen, counted, moment

__all__ = ["Noun", "list_rows", "page_options", "shortened", "show_facts"]


class Noun(NamedTuple):
    """The name of a kind of rows; the plural is also the key in a JSON document."""

    singular: str
    plural: str

    def counted(self, number: int) -> str:
        """Return a number of such rows."""
        return counted(number, *self)


page_options = with_options(
    wide_option,
    limit_option(),
    click.option("--before", type=click.IntRange(1), metavar="ID", help="Only smaller ids: the next page."),
)


def list_rows(
    rows: FilteredRows, noun: Noun, listing: Listing, *, limit: int, before: int | None, wide: bool, as_json: bool
) -> None:
    """Print a page of rows, newest first, and where the next page begins."""
    page = rows.page(before=before, limit=limit + 1)
    next_before = page[limit - 1]["id"] if len(page) > limit else None
    page = redacted(page[:limit])
    if as_json:
        print_document({noun.plural: page, "next_before": next_before})
        return
    screen = Screen(wide=wide)
    screen.listing(listing, page)
    more = f" Older ones: --before {next_before}" if next_before is not None else ""
    screen.say(f"{noun.counted(len(page))}.{more}")


def show_facts(screen: Screen, row: Row) -> None:
    """Print the values of a row, one a line."""
    screen.facts((name, _readable(value)) for name, value in row.items())


def _readable(value: object) -> object:
    if isinstance(value, datetime):
        return moment(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def shortened(text: str, limit: int) -> str:
    """Cut a long text, and say where to find the rest."""
    return text if len(text) <= limit else f"{text[:limit]}\n... ({len(text)} characters; use --json to see all)"
