"""Replaying many deliveries: each in its own transaction, in the order in which they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import DatabaseUnavailable, WebhookError
from .process import replay

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["BulkReplay", "replay_each"]


@dataclass(slots=True)
class BulkReplay:
    """What became of the replays.

    Args:
        replayed: for each, the ``id`` that was replayed, and the new ``delivery_id``, ``task_id``, ``verdict``,
            ``status``.
        verdicts: how many ended how.
        failures: for each, its ``id``, and the ``code`` and ``error`` of the failure.
        interrupted: True where the database went away; what was left was not tried.
    """

    replayed: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


def replay_each(
    state: WebhookState, delivery_ids: Iterable[int], *, after_each: Callable[[], object] = lambda: None
) -> BulkReplay:
    """Replay deliveries one after the other; one that fails does not stop the others.

    Args:
        state: the application's state.
        delivery_ids: which, in this order.
        after_each: called after each, for a progress bar.
    """
    report = BulkReplay()
    for delivery_id in delivery_ids:
        try:
            applied = replay(state, delivery_id)
        except WebhookError as error:
            report.failures.append({"id": delivery_id, "code": error.code, "error": error.message})
            if isinstance(error, DatabaseUnavailable):
                report.interrupted = True
                break
        else:
            report.verdicts[applied.verdict.value] += 1
            report.replayed.append(
                {
                    "id": delivery_id,
                    "delivery_id": applied.delivery_id,
                    "task_id": applied.task_id,
                    "verdict": applied.verdict.value,
                    "status": applied.status.value,
                }
            )
        after_each()
    return report
