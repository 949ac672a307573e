"""The checks of the doctor: their context, their findings, and the decorator that names both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial, wraps
from typing import TYPE_CHECKING

from ..commands import DATABASE_ERRORS, describe_database_error

if TYPE_CHECKING:
    import httpx

    from ...runtime.state import WebhookState

__all__ = ["Check", "DoctorContext", "Finding", "Level", "check", "fail", "ok", "skip", "warn"]

_CHECK_DATABASE = (
    "Check SQLALCHEMY_DATABASE_URI, and that the database is running and accepts connections from this machine."
)


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    """It works, but it is weaker than it should be, or somebody should know."""
    FAIL = "fail"
    """It does not work, or it is open to strangers."""
    SKIP = "skip"
    """It was not checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check.

    Args:
        level: the severity.
        message: the situation, in one sentence.
        remedy: what to do about it; empty if nothing is to be done.
        check: the name of the check; :func:`check` fills it in.
    """

    level: Level
    message: str
    remedy: str = ""
    check: str = ""


ok, skip = partial(Finding, Level.OK), partial(Finding, Level.SKIP)
warn, fail = partial(Finding, Level.WARN), partial(Finding, Level.FAIL)


@dataclass(slots=True)
class DoctorContext:
    """Shared by all checks of one run.

    Args:
        state: the application's state.
        client: for HTTP; follows no redirects.
        has_schema: False once the tables are known to be missing or out of date.
        skews: how far other clocks are ahead of ours.
    """

    state: WebhookState
    client: httpx.Client
    has_schema: bool = True
    skews: dict[str, timedelta] = field(default_factory=dict)

    def note_clock(self, whose: str, answer: httpx.Response) -> None:
        """Compare the ``Date`` of an answer that just came with our own time."""
        try:
            theirs = parsedate_to_datetime(answer.headers["Date"])
        except (KeyError, ValueError, TypeError):
            return
        theirs = theirs.replace(tzinfo=UTC) if theirs.tzinfo is None else theirs
        self.skews[whose] = theirs - self.state.store.clock.wall()


Check = Callable[[DoctorContext], list[Finding]]


def check(name: str, *, needs_schema: bool = False) -> Callable[[Callable[[DoctorContext], Iterable[Finding]]], Check]:
    """Name the findings of a check, and turn a database error into a finding.

    Args:
        name: for findings that name no check.
        needs_schema: skip the check if the tables are missing or out of date.
    """

    def decorate(find: Callable[[DoctorContext], Iterable[Finding]]) -> Check:
        @wraps(find)
        def run(context: DoctorContext) -> list[Finding]:
            try:
                skipped = needs_schema and not context.has_schema
                findings = [skip("Not checked, because of the schema.")] if skipped else list(find(context))
            except DATABASE_ERRORS as error:
                context.has_schema = False
                findings = [fail(describe_database_error(error), _CHECK_DATABASE)]
            return [replace(finding, check=finding.check or name) for finding in findings]

        return run

    return decorate
