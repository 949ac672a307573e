"""Describe a run of the handlers that failed, for the history: bounded, and without the secrets that can be told."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.redaction import Redactor, redacted_code
from ..errors import without_parameters
from .handlers import HandlerError

__all__ = ["FailedTry", "storable_error"]

_MOST_TRIES = 20
_MOST_ERROR = 10_000
_MOST_WORDS = 2_000
_MOST_TRACEBACK = 6_000
_MOST_READ = 32_000
"""Characters of a message, and of the end of a traceback, in which secrets are looked for: far more than is kept, and
few enough that an exception that repeats a whole body holds nobody up."""
_MOST_FRAMES = 16
_OUR_FILES = f"{Path(__file__).resolve().parents[1]}/"


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A run of the handlers that failed.

    Args:
        error: for people; of a handler, its name, the class of the exception, and its message.
        handler: the name of the handler, or None if no handler was called.
        traceback: the frames of the host, innermost last, and the chained exceptions; or an empty text.
        ms: milliseconds that the handlers took, or None if they were not called.
    """

    error: str
    handler: str | None = None
    traceback: str = ""
    ms: float | None = None

    @classmethod
    def of(cls, error: HandlerError, secrets: Sequence[str]) -> FailedTry:
        """Describe what a handler raised, without ``secrets``, which it may have repeated."""
        cause, redactor = without_parameters(error.__cause__ or error), Redactor(secrets)
        try:
            words = str(cause)
        except BaseException:  # noqa: BLE001 - a host's error may do anything
            words = "(its message cannot be read)"
        said = f"{error.handler}: {type(cause).__name__}" + (f": {words}" if words else "")
        return cls(
            error=redacted_code(redactor.text(said)[:_MOST_READ]),
            handler=error.handler,
            traceback=redacted_code(redactor.text(_traceback(cause))[-_MOST_READ:]),
            ms=None if error.seconds is None else round(error.seconds * 1000, 1),
        )

    def entry(self, number: int, at: datetime, earlier: Sequence[Any] | None) -> list[Any]:
        """Return the value of ``failed_tries`` with this try at its end.

        Args:
            number: of this try.
            at: when it failed.
            earlier: the value so far.
        """
        one = {
            "number": number,
            "at": at.isoformat(),
            "ms": self.ms,
            "handler": self.handler and storable_error(self.handler)[:_MOST_WORDS],
            "error": storable_error(self.error)[:_MOST_WORDS],
            "traceback": _end(storable_error(self.traceback, most=4 * _MOST_TRACEBACK)),
        }
        return [*(earlier or ())[1 - _MOST_TRIES :], one]

    def in_ascii(self) -> FailedTry:
        """Return it for a database with a small character set."""
        error, handler, trace = (_in_ascii(text) for text in (self.error, self.handler or "", self.traceback))
        return FailedTry(error, handler or None, trace, self.ms)


def storable_error(error: str, *, most: int = _MOST_ERROR) -> str:
    """Return the text as any database can store it: without NUL and lone surrogates, bounded."""
    bounded = error[:most].replace("\0", "\\x00")
    return bounded.encode("utf-8", errors="backslashreplace").decode("utf-8")[:most]


def _traceback(error: BaseException) -> str:
    try:
        frames = _without_ours(error.__traceback__)
        return "".join(traceback.format_exception(type(error), error, frames, limit=-_MOST_FRAMES))
    except BaseException:  # noqa: BLE001 - the exceptions of a host may do anything when they are looked at
        return ""


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the host's first frame on; all of it if there is none."""
    one = frames
    while one is not None and one.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        one = one.tb_next
    return one or frames


def _end(text: str) -> str:
    """Return the end, where the exception is."""
    return text if len(text) <= _MOST_TRACEBACK else f"…{text[-_MOST_TRACEBACK + 1 :]}"


def _in_ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
