"""``flask webhook audit``: the rows that break a promise."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import click

from ..core.promises import Finding, Promise
from ..operations.audit import audit, count_rows
from ..runtime.state import get_state
from .commands import AppCommand
from .documents import json_option, print_document
from .terminal import Screen, counted, escaped

__all__ = ["audit_command"]

_COULD_NOT_LOOK = 2


class _AuditCommand(AppCommand):
    """A command whose exit code 1 is a finding, so that a failure is 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.show()
            raise click.exceptions.Exit(_COULD_NOT_LOOK) from error


@click.command("audit", cls=_AuditCommand, short_help="Look for rows that break a promise.")
@click.option(
    "--ignore",
    "ignored",
    multiple=True,
    type=click.Choice([promise.value for promise in Promise]),
    help="Leave out findings about this promise. Repeatable.",
)
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="Findings to show.")
@click.option(
    "--whole-history",
    is_flag=True,
    help="Nothing was ever purged, and the extension made every task: expect the whole history of each.",
)
@json_option
def audit_command(ignored: tuple[str, ...], limit: int, *, whole_history: bool, as_json: bool) -> None:
    """Look at every task, delivery and forward, and name those that break a promise.

    It only reads, takes no locks, and may run at any time; a million tasks take less than a minute.

    \b
    Exit codes: 0  sound
                1  something was found
                2  it could not look
    """  # noqa: D301 - click's mark for lines that are not wrapped
    state = get_state()
    by_promise: Counter[str] = Counter()
    with Screen().progress("Looking", count_rows(state)) as on_progress:
        everything = audit(state, whole_history=whole_history, on_progress=on_progress)
        found = _tallied((finding for finding in everything if finding.promise not in ignored), by_promise)
        shown = list(islice(found, limit))
        deque(found, maxlen=0)  # the rest is only counted
    if as_json:
        findings = [asdict(finding) for finding in shown]
        print_document({"sound": not by_promise, "by_promise": by_promise, "findings": findings})
    else:
        _show(shown, by_promise)
    if by_promise:
        raise click.exceptions.Exit(1)


def _tallied(findings: Iterable[Finding], by_promise: Counter[str]) -> Iterator[Finding]:
    for finding in findings:
        by_promise[finding.promise.value] += 1
        yield finding


def _show(shown: list[Finding], by_promise: Counter[str]) -> None:
    for finding in shown:
        about = "" if finding.table == "task" or finding.task_id is None else f" of task {finding.task_id}"
        name = finding.task_id if finding.table == "task" else finding.id
        click.echo(escaped(f"{finding.promise}: {finding.table} {name}{about}: {finding.message}"))
    if (rest := by_promise.total() - len(shown)) > 0:
        click.echo(f"... and {rest} more; --limit shows them.")
    if not by_promise:
        click.echo("Sound: no row breaks a promise.")
        return
    kinds = ", ".join(f"{promise} {number}" for promise, number in by_promise.most_common())
    click.echo(f"{counted(by_promise.total(), 'finding', 'findings')}: {kinds}.")
