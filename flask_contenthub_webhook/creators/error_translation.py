"""The meaning of what a service's HTTP client or SDK raises, in the words of a creator."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.redaction import clean
from ..errors import CreatorAway, CreatorError, CreatorRefused, CreatorUnclear, CreatorUnreachable
from .http_answers import GATEWAY, GATEWAY_PAUSE, NOT_TAKEN, retry_after

__all__ = ["UnknownJob", "service_errors", "unsent_options"]

_NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "WriteTimeout", "UnsupportedProtocol"}
_LATE = {"ReadTimeout", "APITimeoutError"}
_CUT_OFF = {"TransportError", "APIConnectionError", "PyJWKClientConnectionError", "JSONDecodeError"}
_NOT_AS_EXPECTED = {"DecodingError", "TooManyRedirects", "ValidationError"}
_WORDS = ("message", "detail", "error", "title")


class UnknownJob(CreatorRefused):
    """The service itself says that it does not have this job (404)."""


@contextlib.contextmanager
def service_errors() -> Iterator[None]:
    """Translate what httpx, or an SDK that is built on it, raises in this block.

    ==============================================  =======================================================
    no connection, 408, 425, 429, 503               :class:`.CreatorUnreachable`: nothing was delivered
    404 in JSON                                     :class:`UnknownJob`
    any other 4xx in JSON                           :class:`.CreatorRefused`, with the service's words
    a cut connection, a page, 502, 504, 520 to 530  :class:`.CreatorAway`: the service may have acted on it
    a time-out, any other 5xx, another surprise     :class:`.CreatorUnclear`: the same
    ==============================================  =======================================================

    Any other exception passes: it is a bug of the class.
    """
    try:
        yield
    except CreatorError:
        raise
    except Exception as error:
        status, response = _status(error), getattr(error, "response", None)
        translated = _without_answer(error) if status is None else _with_answer(error, status, response)
        if translated is None:
            raise
        raise translated from error


@contextlib.contextmanager
def unsent_options(service: str) -> Iterator[None]:
    """Refuse the job if its options make this block raise, in which the request is prepared, and nothing is sent.

    Raises:
        CreatorRefused: the options are not valid.
    """
    try:
        yield
    except Exception as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else clean(str(error)).rstrip(".")
        message = f"Nothing was sent to {service}, since the options of submit() are not valid: {words}. Correct them."
        raise CreatorRefused(message, reason="INVALID_OPTIONS") from error


def _without_answer(error: BaseException) -> CreatorError | None:
    words = clean(str(error)) or type(error).__name__
    names = {kind.__name__ for one in (error, error.__cause__, error.__context__) for kind in type(one).__mro__}
    if names & _NOT_SENT:
        return CreatorUnreachable(f"The service cannot be connected to: {words}")
    if names & _LATE or names & _NOT_AS_EXPECTED:
        return CreatorUnclear(f"The service did not answer, or not as expected: {words}")
    if names & _CUT_OFF:
        return CreatorAway(f"The service did not answer itself: {words}", retry_after=GATEWAY_PAUSE)
    return None


def _with_answer(error: BaseException, status: int, response: Any) -> CreatorError:
    words, pause = _words(_document(error, response)), GATEWAY_PAUSE
    if response is not None and (asked := retry_after(response.headers.get("Retry-After"))) is not None:
        pause = asked
    if status in NOT_TAKEN:
        said = f"The service accepts no requests at the moment ({status}): {words or 'no words'}"
        return CreatorUnreachable(said, retry_after=pause)
    if 400 <= status < 500 and words:  # noqa: PLR2004
        refusal = UnknownJob if status == 404 else CreatorRefused  # noqa: PLR2004
        return refusal(f"The service refused: {words}", reason=clean(str(getattr(error, "code", None) or status)))
    if status in GATEWAY or not words:
        return CreatorAway(f"A gateway answers for the service ({status}).", retry_after=pause)
    return CreatorUnclear(f"The service failed ({status}): {words}")


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
