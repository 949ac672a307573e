"""Clocks: signed timestamps are refused if ours and the sender's are too far apart; the database's says what is due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from .findings import DoctorContext, Finding, check, ok, skip, warn

__all__ = ["check_clock"]

_TOLERATED = timedelta(seconds=60)
_DATABASE = "the database"
_SIGNATURES = "timestamps in signatures depend on it"
_DEPENDS = {_DATABASE: "what is due, and every time in the history, is by its clock"}


@check("clock")
def check_clock(context: DoctorContext) -> Iterator[Finding]:
    """Compare our clock with the database's, and with the ``Date`` of the answers to other checks."""
    _note_database(context)
    skewed = {whose: skew for whose, skew in context.skews.items() if abs(skew) > _TOLERATED}
    for whose, skew in skewed.items():
        apart = f"{abs(skew.total_seconds()):.0f} s {'ahead of' if skew > timedelta(0) else 'behind'}"
        yield warn(
            f"The clock of {whose} is {apart} ours; {_DEPENDS.get(whose, _SIGNATURES)}.",
            "Synchronise the clocks of both machines with NTP.",
        )
    if not context.skews:
        yield skip("Clock not checked: nothing answered with a Date header.")
    elif not skewed:
        yield ok(f"Our clock agrees with that of {' and '.join(context.skews)}.")


def _note_database(context: DoctorContext) -> None:
    """Ask the database for its time; SQLite has no clock, and one that is down is another check's finding."""
    clock, database = context.state.store.clock, context.state.database
    with suppress(SQLAlchemyError):
        ahead = database.ask(clock.server_ahead)
        if ahead is not None:
            context.skews[_DATABASE] = ahead
