"""Replaying many deliveries: each in its own transaction, in the order in which they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from flask_contenthub_webhook.errors import DatabaseUnavailable, WebhookError
from flask_contenthub_webhook.processing import replay

from .documents import print_document
from .queries import DeliveryFilter, count_matching, replayable_ids
from .terminal import Screen, counted

if TYPE_CHECKING:
    from flask_contenthub_webhook.state import WebhookState

__all__ = ["replay_chosen", "replay_ids"]

_BATCH = 500
_SHOWN_FAILURES = 20


@dataclass(slots=True)
class _Outcome:
    """What became of the replays so far."""

    replayed: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


def replay_ids(state: WebhookState, delivery_ids: list[int], screen: Screen | None) -> None:
    """Replay these deliveries and report; ends the command with 1 when one of them failed."""
    _report(_replay_all(state, delivery_ids, len(delivery_ids), screen), screen)


def replay_chosen(state: WebhookState, chosen: DeliveryFilter, screen: Screen | None, *, do_it: bool) -> None:
    """Count what a filter chooses, and with ``do_it`` replay it and report."""
    counts = count_matching(state, chosen)
    if not do_it:
        _report_dry_run(counts, screen)
        return
    ids = _in_batches(state, chosen, up_to=counts["newest"] or 0)
    _report(_replay_all(state, ids, counts["replayable"], screen), screen)


def _in_batches(state: WebhookState, chosen: DeliveryFilter, *, up_to: int) -> Iterator[int]:
    after = 0
    while batch := replayable_ids(state, chosen, after=after, up_to=up_to, limit=_BATCH):
        yield from batch
        after = batch[-1]


def _replay_all(state: WebhookState, ids: Iterable[int], total: int, screen: Screen | None) -> _Outcome:
    outcome = _Outcome()
    with ExitStack() as stack:
        progress = stack.enter_context(screen.progress()) if screen is not None and total > 1 else None
        bar = progress.add_task("Replaying", total=total) if progress is not None else None
        for delivery_id in ids:
            try:
                applied = replay(state, delivery_id)
            except WebhookError as error:
                outcome.failures.append({"id": delivery_id, "code": error.code, "error": error.message})
                if isinstance(error, DatabaseUnavailable):
                    outcome.interrupted = True
                    break
            else:
                outcome.verdicts[applied.verdict.value] += 1
                outcome.replayed.append(
                    {
                        "id": delivery_id,
                        "delivery_id": applied.delivery_id,
                        "task_id": applied.task_id,
                        "verdict": applied.verdict.value,
                        "status": applied.status.value,
                    }
                )
            if progress is not None and bar is not None:
                progress.advance(bar)
    return outcome


def _report_dry_run(counts: dict[str, Any], screen: Screen | None) -> None:
    if screen is None:
        print_document({"dry_run": True, "matching": counts["matching"], "replayable": counts["replayable"]})
        return
    skipped = counts["matching"] - counts["replayable"]
    without = f" {skipped} of them hold no event that could be replayed." if skipped else ""
    screen.say(
        f"Matching: {counted(counts['matching'], 'delivery', 'deliveries')}.{without} Nothing was done: "
        f"add --yes to replay {counts['replayable']} of them."
    )


def _report(outcome: _Outcome, screen: Screen | None) -> None:
    if screen is None:
        print_document(
            {
                "dry_run": False,
                "replayed": outcome.replayed,
                "verdicts": outcome.verdicts,
                "failures": outcome.failures,
                "interrupted": outcome.interrupted,
            }
        )
    else:
        for row in outcome.replayed if len(outcome.replayed) == 1 else ():
            screen.say(f"Delivery {row['id']} was replayed as {row['delivery_id']}: {row['verdict']}, {row['status']}.")
        if len(outcome.replayed) != 1:
            verdicts = ", ".join(f"{count} {verdict}" for verdict, count in outcome.verdicts.most_common())
            replayed = counted(len(outcome.replayed), "delivery", "deliveries")
            screen.say(f"Replayed: {replayed}{' (' + verdicts + ')' if verdicts else ''}.")
        for failure in outcome.failures[:_SHOWN_FAILURES]:
            screen.say(f"Delivery {failure['id']} failed: {failure['error']}")
        if (more := len(outcome.failures) - _SHOWN_FAILURES) > 0:
            screen.say(f"... and {more} more failed; see --json or `flask webhook deliveries list --verdict failed`.")
        if outcome.interrupted:
            screen.say("The database went away; the rest was left as it is.")
    if outcome.failures:
        raise click.exceptions.Exit(1)
