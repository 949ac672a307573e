"""Replaying what a filter chooses: counted first, then done in chunks, each within one request."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...engine.replay import replay_each
from ...storage.delivery_queries import DeliveryFilter, can_be_replayed
from ...storage.queries import Reading, Row, count_where, reading
from .filters import Wanted
from .listing import columns, search_for
from .windows import Span, span_of

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["Order", "Plan", "carry_out", "make_plan"]

_MOST_AT_ONCE = 200
_SECONDS = 4.0
"""After so long no further replay of a chunk is begun."""
_SAMPLE = 10
_SHOWN_FAILURES = 20
_BRIEF = 200


@dataclass(frozen=True, slots=True)
class Order:
    """What was counted, and is to be replayed: exactly this, whatever comes in meanwhile.

    Args:
        wish: the filter.
        after: replays begin behind this id.
        up_to: and end with this one; replays are deliveries themselves, and are not to be replayed in their turn.
        total: how many there are to replay.
        verdicts: how many were replayed, by what became of them.
        failed: how many replays failed.
        failures: some of those, with their ``id`` and ``error``.
    """

    wish: Wanted
    after: int
    up_to: int
    total: int
    verdicts: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many were tried."""
        return self.verdicts.total() + self.failed

    def to_json(self) -> dict[str, Any]:
        """As JSON, to be signed."""
        chosen = asdict(self.wish.chosen)
        for name in ("since", "until"):
            chosen[name] = chosen[name] and chosen[name].isoformat()
        return {
            "chosen": chosen,
            "text": self.wish.text,
            "after": self.after,
            "up_to": self.up_to,
            "total": self.total,
            "verdicts": self.verdicts,
            "failed": self.failed,
            "failures": self.failures,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Order:
        """The order of :meth:`to_json`; its signature must have been checked."""
        chosen = value["chosen"]
        moments = {name: chosen[name] and datetime.fromisoformat(chosen[name]) for name in ("since", "until")}
        lists = {name: tuple(chosen[name]) for name in ("events", "verdicts", "sources")}
        wish = Wanted(DeliveryFilter(**{**chosen, **moments, **lists}), value["text"], "custom", {}, {})
        return cls(
            wish,
            value["after"],
            value["up_to"],
            value["total"],
            Counter(value["verdicts"]),
            value["failed"],
            value["failures"],
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dry run found.

    Args:
        order: what would be done.
        matching: how many deliveries the filter chooses.
        sample: the first of those that would be replayed.
        looked_at: how much was looked through at the most, in words.
        rest_after: the cursor of the dry run for what was not looked at, or None where that is nothing.
        up_to_time: when the last delivery that was looked at was received, where there is a rest.
    """

    order: Order
    matching: int
    sample: list[Row]
    looked_at: str
    rest_after: int | None = None
    up_to_time: datetime | None = None


def make_plan(read: Reading, model: Any, wish: Wanted, *, after: int) -> Plan:
    """Count what a filter chooses, from its oldest delivery on; nothing is changed.

    Args:
        read: the transaction.
        model: the delivery model.
        wish: the filter.
        after: count behind this id.
    """
    search = search_for(read, model, wish, down=False)
    span = span_of(read, model, wish.chosen.since, wish.chosen.until)
    span = Span(max(span.low, after + 1), span.high)
    window = search.window(span)
    if window is None:
        return Plan(Order(wish, after, after, 0), 0, [], search.looked_at)
    meant = search.conditions(window)
    counts = read.rows(
        sa.select(
            sa.func.count().label("matching"),
            count_where(can_be_replayed(model)).label("replayable"),
            sa.func.max(model.id).label("newest"),
        ).where(*meant)
    )[0]
    sample = search_for(read, model, wish, down=False, more=(can_be_replayed(model),)).read(
        window, columns(model), _SAMPLE
    )
    rest = search.lane.rest(span, window)
    has_rest = search.lane.start(rest) is not None
    up_to = window.high if has_rest else counts["newest"] or after
    last = sa.select(model.received_at).where(model.id <= up_to).order_by(model.id.desc()).limit(1)
    return Plan(
        order=Order(wish, after, up_to, counts["replayable"]),
        matching=counts["matching"],
        sample=sample,
        looked_at=search.looked_at,
        rest_after=up_to if has_rest else None,
        up_to_time=(read.first(last) or (None,))[0] if has_rest else None,
    )


def carry_out(state: WebhookState, order: Order) -> tuple[Order, bool]:
    """Replay the next chunk of an order.

    Returns:
        The order with what was done, and whether it is finished.
    """
    with reading(state.database) as read:
        model = state.delivery_model
        search = search_for(read, model, order.wish, down=False, more=(can_be_replayed(model),))
        found = search.read(Span(order.after + 1, order.up_to), [model.id.label("id")], _MOST_AT_ONCE)
        ids = [row["id"] for row in found]
    begun: list[int] = []
    report = replay_each(state, _in_time(ids, begun))
    failures = [{"id": failure["id"], "error": failure["error"][:_BRIEF]} for failure in report.failures]
    done = replace(
        order,
        after=begun[-1] if begun else order.up_to,
        verdicts=order.verdicts + report.verdicts,
        failed=order.failed + len(failures),
        failures=(order.failures + failures)[:_SHOWN_FAILURES],
    )
    return done, report.interrupted or (len(begun) == len(ids) < _MOST_AT_ONCE)


def _in_time(ids: list[int], begun: list[int]) -> Iterator[int]:
    """The ids for as long as there is time; which ones is written down."""
    started = time.monotonic()
    for delivery_id in ids:
        if begun and time.monotonic() - started > _SECONDS:
            return
        begun.append(delivery_id)
        yield delivery_id
