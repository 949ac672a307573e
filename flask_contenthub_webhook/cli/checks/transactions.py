"""The engine's isolation level: in AUTOCOMMIT, what the host writes is not undone together."""

from __future__ import annotations

from collections.abc import Iterator

from ...storage.drivers import commits_by_itself
from .findings import DoctorContext, Finding, check, warn

__all__ = ["check_transactions"]


@check("transactions", needs_schema=True)
def check_transactions(context: DoctorContext) -> Iterator[Finding]:
    """Warn about an engine in AUTOCOMMIT."""
    state = context.state
    with state.database.session() as session:
        if commits_by_itself(state.store.connection_of(session)):
            yield warn(
                "The engine is in AUTOCOMMIT. Events are applied in real transactions all the same, but what your own "
                "code writes elsewhere is kept statement by statement.",
                "Take AUTOCOMMIT out of SQLALCHEMY_ENGINE_OPTIONS.",
            )
