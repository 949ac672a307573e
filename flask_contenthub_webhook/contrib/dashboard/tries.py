"""The tries of one delivery: the runs of the host's handlers, as far as the history knows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from ...core.received import Source
from ...core.state_machine import UNSETTLED, Verdict
from ...errors import HandlerFailed
from ...storage.queries import Row

__all__ = ["Try", "answer_of", "tries_of"]

_WITHOUT_OWN_SUCCESS = {*UNSETTLED, Verdict.REJECTED, Verdict.REPLAYED}
_MOST_LISTED = 100


@dataclass(frozen=True, slots=True)
class Try:
    """A run of the handlers.

    Args:
        number: from 1.
        outcome: ``failed``, ``lost`` if nothing was recorded of it, or the verdict of the one that settled the event.
        at: when it ended, if that is known.
        ms: its duration, if that is known.
        handler: the one that failed.
        error: what it raised.
        traceback: of that.
    """

    number: int
    outcome: str
    at: datetime | None = None
    ms: float | None = None
    handler: str | None = None
    error: str = ""
    traceback: str = ""


def tries_of(row: Row) -> list[Try]:
    """Return the tries of a delivery, oldest first.

    Args:
        row: the delivery; ``failed_tries`` has those that failed.
    """
    kept = {entry["number"]: entry for entry in row["failed_tries"] or ()}
    was_settled = row["verdict"] not in _WITHOUT_OWN_SUCCESS and row["tries"] not in kept
    first = max(1, row["tries"] - _MOST_LISTED + 1)
    return [
        _failed(kept[number])
        if number in kept
        else Try(number, row["verdict"], row["processed_at"])
        if was_settled and number == row["tries"]
        else Try(number, "lost")
        for number in range(first, row["tries"] + 1)
    ]


def _failed(entry: Row) -> Try:
    at = datetime.fromisoformat(entry["at"])
    return Try(
        number=entry["number"],
        outcome="failed",
        at=at if at.tzinfo is not None else at.replace(tzinfo=UTC),
        ms=entry["ms"],
        handler=entry["handler"],
        error=entry["error"],
        traceback=entry["traceback"],
    )


def answer_of(row: Row) -> str | None:
    """Return the status and the code that the sender of a delivery got; None if nobody waited for an answer."""
    status = row["answer_status"]
    if status is None or row["source"] != Source.WEBHOOK:
        return None
    if row["verdict"] == Verdict.REJECTED:
        code = row["error"]
    elif status == HandlerFailed.status:
        code = HandlerFailed.code
    elif status == HTTPStatus.ACCEPTED:
        code = Verdict.QUEUED.value
    else:
        code = row["verdict"]
    return f"{status} {code}"
