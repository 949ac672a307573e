"""The `replay` of deliveries and of forwards: what is selected, the dry run, and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from ..engine.replay import BulkReplay
from ..storage.queries import FilteredRows
from .documents import print_document
from .rows import Noun
from .terminal import Screen

__all__ = ["ReplayEach", "replay_rows"]

_SHOWN_FAILURES = 20

ReplayEach = Callable[[Iterable[int], Callable[[], object]], BulkReplay]
"""Replay rows, and call the second argument after each."""


def replay_rows(
    rows: FilteredRows,
    noun: Noun,
    row_ids: Sequence[int],
    replay_each: ReplayEach,
    *,
    summary: Callable[[BulkReplay], str],
    document: Callable[[BulkReplay], dict[str, Any]],
    yes: bool,
    as_json: bool,
) -> None:
    """Replay the rows with the given ids, or those that match the filter; without ``yes`` the latter only counts.

    Raises:
        UsageError: there are both ids and a filter, or neither.
        Exit: with 1 when a replay failed.
    """
    if bool(row_ids) != rows.criteria.is_empty:
        raise click.UsageError("Give either IDs or filters, such as --since 2d.")
    screen = None if as_json else Screen()
    if row_ids:
        ids: Iterable[int] = list(dict.fromkeys(row_ids))
        total = len(set(row_ids))
    else:
        counts = rows.counts()
        if not yes:
            _report_dry_run(counts["matching"], counts["replayable"], noun, screen)
            return
        ids, total = rows.replayable_ids(up_to=counts["newest"] or 0), counts["replayable"]
    outcome = _with_progress(replay_each, ids, total, screen)
    if screen is None:
        print_document({"dry_run": False, **document(outcome)})
    else:
        screen.say(summary(outcome))
        _show_failures(outcome, noun, screen)
    if outcome.failures:
        raise click.exceptions.Exit(1)


def _with_progress(replay_each: ReplayEach, ids: Iterable[int], total: int, screen: Screen | None) -> BulkReplay:
    if screen is None or total == 1:
        return replay_each(ids, lambda: None)
    with screen.progress("Replaying", total) as advance:
        return replay_each(ids, lambda: advance(1))


def _report_dry_run(matching: int, replayable: int, noun: Noun, screen: Screen | None) -> None:
    if screen is None:
        print_document({"dry_run": True, "matching": matching, "replayable": replayable})
        return
    skipped = f" {matching - replayable} of them cannot be replayed." if matching > replayable else ""
    remedy = f": add --yes to replay {replayable} of them" if replayable else ""
    screen.say(f"Matching: {noun.counted(matching)}.{skipped} Nothing was replayed{remedy}.")


def _show_failures(outcome: BulkReplay, noun: Noun, screen: Screen) -> None:
    for failure in outcome.failures[:_SHOWN_FAILURES]:
        screen.say(f"{noun.singular.capitalize()} {failure['id']} failed: {failure['error']}")
    if (more := len(outcome.failures) - _SHOWN_FAILURES) > 0:
        screen.say(f"... and {more} more failed; use --json to see all.")
    if outcome.interrupted:
        screen.say("The database became unavailable; the rest was not replayed.")
