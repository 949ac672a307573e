"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

__all__ = [
    "choice_option",
    "limit_option",
    "period_options",
    "read_attempt",
    "read_moment",
    "since_option",
    "wide_option",
    "with_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_AGO = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine options into one decorator, in the order of ``--help``."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def choice_option(option: str, name: str, values: Iterable[str], of: str) -> Callable[[F], F]:
    """Return a repeatable option that takes some of the values, such as the members of an enum."""
    choices = click.Choice([str(value) for value in values])
    return click.option(option, name, multiple=True, type=choices, help=f"Only {of}. Repeatable.")


def period_options(what: str) -> Callable[[F], F]:
    """Return ``--since`` and ``--until``, whose help begins with what happened then."""
    text = f"{what} before: an age or a time, as for --since."
    return with_options(
        since_option(f"{what} since"), click.option("--until", type=read_moment, metavar="TIME", help=text)
    )


def since_option(what: str) -> Callable[[F], F]:
    """Return ``--since``, whose help begins with what happened since then."""
    text = f"{what}: 30m, 2h or 7d ago, or an ISO 8601 time."
    return click.option("--since", type=read_moment, metavar="TIME", help=text)


def limit_option() -> Callable[[F], F]:
    """Return ``--limit`` for a list."""
    kind = click.IntRange(1, 10_000)
    return click.option("--limit", type=kind, default=50, show_default=True, help="Maximum number of rows.")


def wide_option(command: F) -> F:
    """Give a list ``--wide``."""
    text = "Print every column, one line per row, however wide, as into a pipe."
    return click.option("--wide", is_flag=True, help=text)(command)


def read_moment(text: str) -> datetime | timedelta:
    """Parse a time: ``30m``, ``2h`` or ``7d`` ago, or a date and time in ISO 8601, UTC unless it names a zone.

    The command gets a time for what is ago, too: by the database's clock, once it has the application.
    """
    try:
        if match := _AGO.fullmatch(text.strip()):
            ago = timedelta(**{_UNITS[match[2]]: int(match[1])})
            _ = datetime.now(UTC) - ago  # it must not be before the calendar begins
            return ago
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a valid time. Use 30m, 2h or 7d (ago), or an ISO 8601 time such as 2026-11-24T08:00."
        ) from None


def read_attempt(text: str) -> int | None:
    """Parse the number of an attempt, from 1; ``current`` is None, for a URL that is valid for every attempt."""
    if text == "current":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise click.BadParameter(f"{text!r} is not a valid attempt. Use a number from 1, or current.")
    return int(text)
