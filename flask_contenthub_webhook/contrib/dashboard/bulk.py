"""Bulk replay of the deliveries that match a filter: counted first, then replayed in chunks, one for each request."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from ...core.state_machine import Verdict
from ...engine.replay import replay_each
from ...storage.delivery_queries import can_be_replayed
from ...storage.queries import Reading, Row, count_where, id_of, reading
from .filters import FilterForm, PageFilter
from .listing import columns, search_for
from .windows import Span, span_of

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["Order", "Plan", "carry_out", "make_plan"]

_MOST_AT_ONCE = 200
_SECONDS = 4.0
"""After this time no further replay of a chunk is started."""
_SAMPLE = 10
_SHOWN_FAILURES = 20
_BRIEF = 200


@dataclass(frozen=True, slots=True)
class Order:
    """A confirmed bulk replay: exactly the deliveries that were counted, and none that arrived since.

    Args:
        criteria: the filter.
        text: the text that the bodies must contain, or an empty string.
        after: replay deliveries with greater ids than this.
        up_to: the last id to replay; replays are deliveries as well, and must not be replayed in turn.
        total: the number of deliveries to replay.
        verdicts: the number of replays so far, by verdict.
        again: the number of replays at which the handlers failed again; each is a new delivery.
        refused: the number of deliveries that could not be replayed.
        failures: some of both, with ``id``, ``error``, and the new ``delivery_id`` or None.
    """

    criteria: PageFilter
    text: str
    after: int
    up_to: int
    total: int
    verdicts: Counter[str] = field(default_factory=Counter)
    again: int = 0
    refused: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The number of deliveries that were tried so far."""
        return self.verdicts.total() + self.failed

    @property
    def failed(self) -> int:
        """The number of those without success."""
        return self.again + self.refused

    @property
    def applied(self) -> int:
        """The number of events that had their effect now."""
        return self.verdicts[Verdict.PROCESSED.value]

    @property
    def without_effect(self) -> int:
        """The number of events that needed none, or have to wait."""
        return self.verdicts.total() - self.applied

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, to be signed."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Order:
        """Return the order of :meth:`to_json`, whose signature must have been checked."""
        return msgspec.convert(value, cls, dec_hook=lambda _, counts: Counter(counts))


# msgspec prepares a type at first use, and two threads that cause this at once crash the process.
msgspec.json.Decoder(Order)


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a dry run.

    Args:
        order: the replay that it allows.
        matching: the number of deliveries that match the filter.
        sample: the first of those that would be replayed.
        looked_at: the limit of the search, as a text.
        rest_after: the cursor of the dry run for the rest, or None if there is no rest.
        up_to_time: when the last delivery before the rest was received.
    """

    order: Order
    matching: int
    sample: list[Row]
    looked_at: str
    rest_after: int | None = None
    up_to_time: datetime | None = None


def make_plan(read: Reading, model: Any, form: FilterForm, *, after: int) -> Plan:
    """Count the deliveries that match a filter, from the oldest on; nothing is changed.

    Args:
        read: the transaction.
        model: the delivery model.
        form: the filter.
        after: count greater ids than this.
    """
    criteria, text = form.criteria, form.text
    search = search_for(read, model, criteria, text, down=False)
    span = span_of(read, model, criteria.since, criteria.until)
    span = Span(max(span.low, after + 1), span.high)
    window = search.window(span)
    if window is None:
        return Plan(Order(criteria, text, after, after, 0), 0, [], search.looked_at)
    conditions = search.conditions(window)
    counts = read.rows(
        sa.select(
            sa.func.count().label("matching"),
            count_where(can_be_replayed(model)).label("replayable"),
            sa.func.max(model.id).label("newest"),
        ).where(*conditions)
    )[0]
    replayable = search_for(read, model, criteria, text, down=False, more=(can_be_replayed(model),))
    rest = search.lane.rest(span, window)
    has_rest = search.lane.start(rest) is not None
    up_to = window.high if has_rest else counts["newest"] or after
    last = sa.select(model.received_at).where(id_of(model) <= up_to).order_by(model.id.desc()).limit(1)
    return Plan(
        order=Order(criteria, text, after, up_to, counts["replayable"]),
        matching=counts["matching"],
        sample=replayable.read(window, columns(model), _SAMPLE),
        looked_at=search.looked_at,
        rest_after=up_to if has_rest else None,
        up_to_time=(read.first(last) or (None,))[0] if has_rest else None,
    )


def carry_out(state: WebhookState, order: Order, *, by: str) -> tuple[Order, bool]:
    """Replay the next chunk of an order, for somebody.

    Returns:
        The order with its progress, and True if it is finished.
    """
    with reading(state.database) as read:
        model = state.delivery_model
        search = search_for(read, model, order.criteria, order.text, down=False, more=(can_be_replayed(model),))
        rows = search.read(Span(order.after + 1, order.up_to), [model.id.label("id")], _MOST_AT_ONCE)
        ids = [row["id"] for row in rows]
    begun: list[int] = []
    report = replay_each(state, _in_time(ids, begun), by=by)
    failures = [
        {"id": failure["id"], "delivery_id": failure["delivery_id"], "error": failure["error"][:_BRIEF]}
        for failure in report.failures
    ]
    again = sum(failure["delivery_id"] is not None for failure in failures)
    done = replace(
        order,
        after=begun[-1] if begun else order.up_to,
        verdicts=order.verdicts + report.verdicts,
        again=order.again + again,
        refused=order.refused + len(failures) - again,
        failures=(order.failures + failures)[:_SHOWN_FAILURES],
    )
    return done, report.interrupted or (len(begun) == len(ids) < _MOST_AT_ONCE)


def _in_time(ids: list[int], begun: list[int]) -> Iterator[int]:
    """Yield ids until the time is up, and append them to ``begun``."""
    started = time.monotonic()
    for delivery_id in ids:
        if begun and time.monotonic() - started > _SECONDS:
            return
        begun.append(delivery_id)
        yield delivery_id
