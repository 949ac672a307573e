"""The meaning of an HTTP answer: the creator's own, or that of a gateway which stands in for it while it is away.

A gateway's answer says nothing about the job. It is left for later: see the table in ``docs/creators.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..core.redaction import Redactor, clean
from ..errors import CreatorAway, CreatorRefused, CreatorUnclear, CreatorUnreachable
from .answers import creator_error, error_words, parse_json

__all__ = [
    "GATEWAY",
    "GATEWAY_PAUSE",
    "NOT_TAKEN",
    "AccessRefused",
    "Answer",
    "ConnectionCut",
    "NoAnswer",
    "checked",
    "is_not_found",
    "retry_after",
]

NOT_TAKEN = frozenset({408, 425, 429, 503, 521, 523, 525, 526, 530})
"""Nothing was delivered: too many requests, or the gateway has no connection to the creator."""
GATEWAY = frozenset({502, 504, *range(520, 531)})
"""A gateway answers; the creator may have the request."""
_AUTHENTICATION = frozenset({401, 403})
GATEWAY_PAUSE = 30.0
"""Seconds to leave a creator alone for which a gateway answers, unless the answer has a Retry-After."""
_LONGEST_PAUSE = 3600.0
_NOT_THERE = "{} answers 404, but not in the creator's format. Is CREATOR_API_BASE_URL right?"


class ConnectionCut(CreatorAway):
    """The creator closed the connection without an answer; the request may have crashed it."""


class NoAnswer(CreatorUnclear):
    """The creator did not answer in time."""

    status: int | None = None
    """HTTP status, if the answer had begun."""


class AccessRefused(CreatorRefused):
    """The creator, or a gateway in front of it, denied access."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Args:
        status: its status.
        body: its body.
        retry_after: seconds of its Retry-After; None if it has none.
    """

    status: int
    body: bytes
    retry_after: float | None = None


def checked(answer: Answer, address: str, redactor: Redactor) -> Answer:
    """Return the answer if it is the creator's and its status is 2xx; ``redactor`` cleans the words of errors.

    Raises:
        CreatorUnreachable: nothing was delivered: the creator is overloaded or away, or not at this address.
        CreatorRefused: any other 4xx; the message includes the creator's own.
        CreatorAway: a gateway answers, and the creator may have the request.
        CreatorUnclear: any other status.
    """
    status, pause = answer.status, GATEWAY_PAUSE if answer.retry_after is None else answer.retry_after
    if 200 <= status < 300:  # noqa: PLR2004
        if _is_a_page(answer):
            raise CreatorAway(
                f"{address} answers {status} with something that is not the creator's.", retry_after=pause
            )
        return answer
    said = redactor.value(_said(answer))
    words = error_words(said) if said else f"HTTP status {status}"
    if status in NOT_TAKEN:
        raise CreatorUnreachable(
            f"The creator at {address} accepts no requests at the moment ({status}): {words}.", retry_after=pause
        )
    if 300 <= status < 400:  # noqa: PLR2004
        raise CreatorUnreachable(
            f"The creator at {address} answers with a redirect ({status}), which is not followed. "
            "Set CREATOR_API_BASE_URL to the final address."
        )
    if status == 404 and said is None:  # noqa: PLR2004
        raise CreatorUnreachable(_NOT_THERE.format(address), retry_after=pause)
    if 400 <= status < 500:  # noqa: PLR2004
        refusal = AccessRefused if status in _AUTHENTICATION else CreatorRefused
        hint = ". Is CREATOR_API_KEY right?" if status in _AUTHENTICATION else ""
        raise refusal(f"The creator refused: {words}{hint}", reason=_code(said), details=_details(said))
    if status in GATEWAY or said is None:
        raise CreatorAway(f"A gateway at {address} answers for the creator ({status}).", retry_after=pause)
    raise CreatorUnclear(f"The creator at {address} failed ({status}): {words}.")


def is_not_found(answer: Answer, address: str) -> bool:
    """Return True if the creator does not know the job.

    Raises:
        CreatorAway: a 404 that did not come from the creator itself, but from a proxy, say.
        CreatorUnclear: a 404 about something else.
    """
    if answer.status != 404:  # noqa: PLR2004
        return False
    said = _said(answer)
    if said is None:
        raise CreatorAway(_NOT_THERE.format(address), retry_after=GATEWAY_PAUSE)
    if _code(said) not in {None, "NOT_FOUND", "TASK_NOT_FOUND"}:
        raise CreatorUnclear(f"{address} answers 404, but not about the job. Is CREATOR_API_BASE_URL right?")
    return True


def retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After, which may be a date; None if there is none, or it is not valid."""
    if header is None:
        return None
    text = header.strip()
    try:
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            at = parsedate_to_datetime(text)
            seconds = ((at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


def _is_a_page(answer: Answer) -> bool:
    """Return True for a body that no service would write as JSON, such as the page of a gateway."""
    first = answer.body[:1000].lstrip()[:1]
    return first not in b'{["' if first else False


def _said(answer: Answer) -> dict[str, object] | None:
    try:
        return creator_error(parse_json(answer.body))
    except CreatorUnclear:
        return None


def _code(said: Mapping[str, object] | None) -> str | None:
    code = said.get("code") if said else None
    return clean(str(code)) if isinstance(code, str | int) else None


def _details(said: Mapping[str, object] | None) -> Mapping[str, object]:
    details = said.get("details") if said else None
    if isinstance(details, dict):
        return details
    return {} if details is None else {"details": details}
