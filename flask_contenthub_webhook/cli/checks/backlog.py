"""Whether anybody does the periodic work: what has long been due tells."""

from __future__ import annotations

from datetime import timedelta

from ...storage.task_queries import count_waiting
from ..commands import DATABASE_ERRORS, database_words
from .findings import Examination, Finding, Level

__all__ = ["check_backlog"]

_PATIENCE = timedelta(minutes=5)
_NAMES = {"polls": "questions to the creator", "submissions": "submissions", "retries": "retries of deliveries"}


def check_backlog(examination: Examination) -> list[Finding]:
    """Work that is due for more than five minutes means that no scheduler runs, or not enough."""
    if not examination.has_schema:
        return [Finding("background work", Level.SKIP, "Not looked at, because of the schema.")]
    try:
        waiting = count_waiting(examination.state.database, due_before=examination.state.clock() - _PATIENCE)
    except DATABASE_ERRORS as error:
        return [Finding("background work", Level.FAIL, database_words(error))]
    late = [f"{waiting[key]} {name}" for key, name in _NAMES.items() if waiting[key]]
    if not late:
        return [Finding("background work", Level.OK, "Nothing has been waiting for more than five minutes.")]
    return [
        Finding(
            "background work",
            Level.WARN,
            f"{', '.join(late)} have been due for more than five minutes: nobody does them, or too few.",
            "Run `flask webhook scheduler` as a service, or set WEBHOOK_SCHEDULER_ENABLED=true; where one runs, look "
            "into its log.",
        )
    ]
