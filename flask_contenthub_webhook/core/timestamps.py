"""Read a timestamp in the forms that senders in all languages write; pure, without a clock."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ["TIMESTAMP_FORMS", "read_timestamp"]

TIMESTAMP_FORMS = "ISO 8601, RFC 2822, or seconds or milliseconds since 1970"
_PLAUSIBLE_YEARS = range(1970, 2201)
"""At the ends of the calendar, drivers cannot read back what the database stored once time zones are involved."""
_MAX_LENGTH = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_UNITS = ((1e11, 1), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
"""Each unit of time since 1970 by the number above which it cannot be meant: 1e11 seconds are the year 5138."""
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_UTC_NAME = re.compile(r" ?(?:UTC|GMT|Z)$")
_GO_TIME = re.compile(r" ([+-][0-9]{4}) [A-Z+-][A-Z0-9+-]*(?: M=[+-][0-9.]+)?$")
"""In upper case: Go's ``time.String()`` names the zone after its offset, and may add its monotonic clock."""
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_USUAL = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z", re.ASCII)
"""The form of nearly all senders, which needs no further look."""
_RFC_2822 = re.compile(r"(?:[A-Za-z]{3,9}, ?)?[0-9]{1,2}[ -][A-Za-z]{3}[ -][0-9]{4} [0-9]{1,2}:[0-9]{2}", re.ASCII)


def read_timestamp(value: Any) -> datetime | None:
    """Convert to aware UTC; a time without a zone is taken as UTC, which is what such senders mean.

    Args:
        value: text, or a number since 1970.

    Returns:
        None for what stands for no time: empty text, the number 0, and Go's zero time.

    Raises:
        ValueError: it cannot be read, or its year is outside 1970 to 2200.
    """
    if isinstance(value, str) and _USUAL.fullmatch(value):
        return datetime.fromisoformat(value)
    with suppress(OverflowError, TypeError, IndexError):  # of the parsers, at the ends of the calendar
        moment = _moment(value)
        if moment is None or (moment.year, moment.month, moment.day) == (1, 1, 1):
            return None
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if moment.year in _PLAUSIBLE_YEARS:
            return moment
    raise ValueError(f"not a time from 1970 to 2200 ({TIMESTAMP_FORMS})")


def _moment(value: Any) -> datetime | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since_epoch(value)
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        raise ValueError("not a time")
    text = value.strip()
    if not text:
        return None
    if _ISO_DATE.match(text):
        try:
            return datetime.fromisoformat(text)  # as nearly all are
        except ValueError:
            pass
        text = _GO_TIME.sub(r"\1", text.upper())
        return datetime.fromisoformat(re.sub(r" (?=[+-][0-9])", "", _UTC_NAME.sub("+00:00", text)))
    if _NUMBER.fullmatch(text):
        return _since_epoch(float(text))
    if _RFC_2822.match(text):
        return parsedate_to_datetime(text)
    raise ValueError("not a time")


def _since_epoch(number: float) -> datetime | None:
    for most, per_second in _EPOCH_UNITS:
        if 0 <= number < most:
            return _EPOCH + timedelta(seconds=number / per_second) if number else None
    raise ValueError("not a time")
