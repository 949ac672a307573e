"""The meaning of what a service's HTTP client or SDK raises, in the words of a creator."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.redaction import clean
from ..errors import CreatorError, CreatorRefused, CreatorUnclear, CreatorUnreachable

__all__ = ["UnknownJob", "service_errors"]

_NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "WriteTimeout", "UnsupportedProtocol"}
_NO_ANSWER = {
    "TransportError",
    "DecodingError",
    "TooManyRedirects",
    "APIConnectionError",
    "PyJWKClientConnectionError",
    "JSONDecodeError",
    "ValidationError",
}
_WORDS = ("message", "detail", "error", "title")
_NOT_TAKEN = {408, 425, 429, 503, 521, 523, 525, 526, 530}


class UnknownJob(CreatorRefused):
    """The service itself says that it does not have this job (404)."""


@contextlib.contextmanager
def service_errors() -> Iterator[None]:
    """Translate what httpx, or an SDK that is built on it, raises in this block.

    ===========================================  ==================================================================
    no connection, 408, 425, 429, 503            :class:`.CreatorUnreachable`: nothing was delivered
    404 in JSON                                  :class:`UnknownJob`
    any other 4xx in JSON                        :class:`.CreatorRefused`, with the service's words
    a cut connection, a time-out, any other 5xx  :class:`.CreatorUnclear`: the service may have acted on the request
    an answer that is a page, or unexpected      the same
    ===========================================  ==================================================================

    Any other exception passes: it is a bug of the class.
    """
    try:
        yield
    except CreatorError:
        raise
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from error


def _translated(error: BaseException) -> CreatorError | None:
    status, response = _status(error), getattr(error, "response", None)
    if status is None:
        words = clean(str(error)) or type(error).__name__
        names = {kind.__name__ for one in (error, error.__cause__, error.__context__) for kind in type(one).__mro__}
        if names & _NOT_SENT:
            return CreatorUnreachable(f"The service cannot be connected to: {words}")
        return CreatorUnclear(f"The service did not answer: {words}") if names & _NO_ANSWER else None
    words, code = _words(_document(error, response)), getattr(error, "code", None) or status
    if status in _NOT_TAKEN:
        return CreatorUnreachable(f"The service accepts no requests at the moment ({status}): {words or 'no words'}")
    if 400 <= status < 500 and words:  # noqa: PLR2004
        refusal = UnknownJob if status == 404 else CreatorRefused  # noqa: PLR2004
        return refusal(f"The service refused: {words}", reason=clean(str(code)))
    return CreatorUnclear(f"The service failed ({status}): {words or 'a page, perhaps of a gateway'}")


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, under the names that httpx and the SDKs give it."""
    of_response = getattr(getattr(error, "response", None), "status_code", None)
    for status in (getattr(error, "status_code", None), getattr(error, "status", None), of_response):
        if isinstance(status, int):
            return status
    return None


def _document(error: BaseException, response: Any) -> Any:
    """Return what the service said as JSON; None for a page."""
    if response is None:  # Replicate's errors keep no more than this
        return getattr(error, "detail", None) or getattr(error, "title", None)
    try:
        return response.json()
    except ValueError:
        return None


def _words(said: Any) -> str:
    """Return the words of an error document, however it spells them; an httpx error's own would show the whole URL."""
    while isinstance(said, Mapping) and (names := [name for name in _WORDS if said.get(name)]):
        said = said[names[0]]
    return clean(said if isinstance(said, str) else json.dumps(said)) if said else ""
