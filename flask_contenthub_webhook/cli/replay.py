"""``flask webhook deliveries replay``: what is chosen, what a dry run says, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..engine.replay import BulkReplay, replay_each
from ..storage.delivery_queries import DeliveryFilter, count_matching, replayable_ids
from .documents import print_document
from .terminal import Screen, counted

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["replay_chosen", "replay_ids"]

_BATCH = 500
_SHOWN_FAILURES = 20


def replay_ids(state: WebhookState, delivery_ids: list[int], screen: Screen | None) -> None:
    """Replay these deliveries and report; ends the command with 1 when one of them failed."""
    _report(_replay_all(state, delivery_ids, len(delivery_ids), screen), screen)


def replay_chosen(state: WebhookState, chosen: DeliveryFilter, screen: Screen | None, *, do_it: bool) -> None:
    """Count what a filter chooses, and with ``do_it`` replay it and report."""
    counts = count_matching(state.database, chosen)
    if not do_it:
        _report_dry_run(counts, screen)
        return
    ids = _in_batches(state, chosen, up_to=counts["newest"] or 0)
    _report(_replay_all(state, ids, counts["replayable"], screen), screen)


def _in_batches(state: WebhookState, chosen: DeliveryFilter, *, up_to: int) -> Iterator[int]:
    after = 0
    while batch := replayable_ids(state.database, chosen, after=after, up_to=up_to, limit=_BATCH):
        yield from batch
        after = batch[-1]


def _replay_all(state: WebhookState, ids: Iterable[int], total: int, screen: Screen | None) -> BulkReplay:
    if screen is None or total == 1:
        return replay_each(state, ids)
    with screen.progress() as progress:
        bar = progress.add_task("Replaying", total=total)
        return replay_each(state, ids, after_each=lambda: progress.advance(bar))


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


def _report(outcome: BulkReplay, screen: Screen | None) -> None:
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
