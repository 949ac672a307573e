"""Send forwards again: one, or many in chunks, each chunk in a request of its own, after a count."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from ...errors import DatabaseUnavailable, WebhookError
from ...forwarding.replay import replay_forward
from ...storage.forwards import DEAD, DELIVERED
from ...storage.queries import Reading, Row, reading
from .forwards import columns_of, shown, url_of
from .search import Search
from .windows import EVERYTHING, Lane, Span

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["RESENDABLE", "ResendOrder", "ResendPlan", "carry_out_resend", "plan_resend"]

RESENDABLE = (DEAD, DELIVERED)
_MOST_AT_ONCE = 200
_SECONDS = 4.0
"""After this time no further forward of a chunk is made to wait."""
_SAMPLE = 10
_SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class ResendOrder:
    """A confirmed order to send forwards again: those that were counted, and none that came since.

    Args:
        status: ``dead`` or ``delivered``.
        like: the id of a forward, for those to the same URL; or None for all.
        after: send forwards with greater ids than this.
        up_to: the last id.
        total: the number of forwards.
        done: how many of them wait to be sent again by now.
        failures: some of the others, with ``id`` and ``error``.
        refused: the number of the others.
    """

    status: str
    like: int | None
    after: int
    up_to: int
    total: int
    done: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, to be signed."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ResendOrder:
        """Return the order of :meth:`to_json`, whose signature must have been checked."""
        return msgspec.convert(value, cls)


# msgspec prepares a type at first use, and two threads that cause this at once crash the process.
msgspec.json.Decoder(ResendOrder)


@dataclass(frozen=True, slots=True)
class ResendPlan:
    """The result of a count.

    Args:
        order: what it allows.
        sample: the first of the forwards.
        has_more: there are more, which another order has to send.
    """

    order: ResendOrder
    sample: list[Row]
    has_more: bool


def plan_resend(read: Reading, state: WebhookState, *, status: str, like: int | None) -> ResendPlan:
    """Count the forwards of a state, to the URL of one of them or to all; nothing is changed."""
    search = _search(read, state, status, like)
    window = search.window(EVERYTHING)
    if window is None:
        return ResendPlan(ResendOrder(status, like, 0, 0, 0), [], has_more=False)
    forward = state.models.forward
    total, newest = read.first(
        sa.select(sa.func.count(), sa.func.max(forward.id)).where(*search.conditions(window))
    ) or (0, None)
    return ResendPlan(
        order=ResendOrder(status, like, 0, newest or 0, total),
        sample=[shown(row) for row in search.read(window, columns_of(forward), _SAMPLE)],
        has_more=search.lane.start(search.lane.rest(EVERYTHING, window)) is not None,
    )


def carry_out_resend(state: WebhookState, order: ResendOrder, *, by: str) -> tuple[ResendOrder, bool]:
    """Make the next chunk of an order wait to be sent; return the order with its progress, and True if it is done."""
    with reading(state.database) as read:
        search = _search(read, state, order.status, order.like)
        forward = state.models.forward
        span = Span(order.after + 1, order.up_to)
        ids = [row["id"] for row in search.read(span, [forward.id.label("id")], _MOST_AT_ONCE)]
    began, last, done, failures = time.monotonic(), order.after, 0, list[dict[str, Any]]()
    for forward_id in ids:
        if last != order.after and time.monotonic() - began > _SECONDS:
            break
        try:
            replay_forward(state, forward_id, by=by)
            done += 1
        except DatabaseUnavailable:
            raise
        except WebhookError as error:  # it was purged, or somebody else sends it again
            failures.append({"id": forward_id, "error": error.message})
        last = forward_id
    order = replace(
        order,
        after=last,
        done=order.done + done,
        failures=(order.failures + failures)[:_SHOWN_FAILURES],
        refused=order.refused + len(failures),
    )
    return order, not ids or (last == ids[-1] and len(ids) < _MOST_AT_ONCE)


def _search(read: Reading, state: WebhookState, status: str, like: int | None) -> Search:
    forward = state.models.forward
    conditions = [forward.status == status]
    if like is not None:
        conditions.append(forward.url == url_of(read, state, like))
    return Search(read, forward, Lane(read, forward, down=False), conditions)
