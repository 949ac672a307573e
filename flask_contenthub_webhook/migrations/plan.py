"""The steps that ``flask db upgrade`` would make of the packaged revisions on the database at hand, without making any.

The revisions themselves say what they would do: those in the host's migrations, or the packaged ones where they are not
installed yet.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..runtime.state import get_state
from ..storage.table_size import TableSize, table_size
from .install import InstalledRevision, MigrationError, install_revisions

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["PlannedRevision", "PlannedStep", "plan_revisions"]

_ROWS_A_SECOND = {"fill": 8_000, "scan": 150_000, "index": 300_000}
_BYTES_A_SECOND = 50_000_000


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of an upgrade.

    Args:
        title: its purpose.
        lock: whom it stops, and for how long.
        rewrites: True if the database copies the table for it.
        seconds: a rough estimate, from the size of the table.
    """

    title: str
    lock: str
    rewrites: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class PlannedRevision:
    """A packaged revision, and its steps.

    Args:
        revision: its id.
        applied: True if the database is past it, so that it has no steps.
        steps: what is left to do.
        kept: columns that keep a type which is not the models', and that type.
    """

    revision: str
    applied: bool
    steps: tuple[PlannedStep, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


def plan_revisions(app: Flask) -> tuple[dict[str, TableSize], list[PlannedRevision]]:
    """Return the sizes of our tables that exist, and what an upgrade would do; the database is only read.

    Args:
        app: the application, with Flask-Migrate and the extension registered.

    Raises:
        MigrationError: the revisions cannot be installed, or the upgrade would refuse; the message says what to do.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.util import CommandError

    installed = install_revisions(app, dry_run=True)
    with app.app_context():
        state = get_state(app)
        mapper = sa.inspect(state.task_model)
        with state.database.session() as session:
            connection = session.connection(bind_arguments={"mapper": mapper})
            sizes = {
                table.name: size
                for table in (model.__table__ for model in state.models)
                if (size := table_size(connection, table)) is not None
            }
            context = MigrationContext.configure(connection)
            applied = _applied(app, context)
            try:
                with Operations.context(context):
                    planned = [_planned(each, sizes, applied=each.revision in applied) for each in installed]
            except CommandError as error:
                raise MigrationError(str(error)) from error
            session.rollback()
    return sizes, planned


def _planned(revision: InstalledRevision, sizes: dict[str, TableSize], *, applied: bool) -> PlannedRevision:
    if applied:
        return PlannedRevision(revision.revision, applied=True)
    module = _module_of(revision)
    steps, kept = module.plan()
    first = sizes.get(getattr(module, "TABLE", ""), TableSize(0, 0))
    return PlannedRevision(
        revision.revision,
        applied=False,
        steps=tuple(
            PlannedStep(
                step.title, step.lock, step.work == "rewrite", _seconds(step.work, sizes.get(step.table, first))
            )
            for step in steps
        ),
        kept=tuple(sorted(kept.items())),
    )


def _seconds(work: str, size: TableSize) -> float:
    if work == "rewrite":
        return size.bytes / _BYTES_A_SECOND
    return size.rows / _ROWS_A_SECOND[work] if work in _ROWS_A_SECOND else 0.0


def _module_of(revision: InstalledRevision) -> ModuleType:
    """Return the revision as Alembic would run it, from the host's file or from the text that would be written."""
    source = revision.source or Path(revision.path).read_text(encoding="utf-8")
    module = ModuleType(f"planned_{revision.revision}")
    sys.modules[module.__name__] = module  # where classes with annotations look for their names
    try:
        exec(compile(source, str(revision.path), "exec"), module.__dict__)  # noqa: S102 - the host's own migration
    finally:
        del sys.modules[module.__name__]
    return module


def _applied(app: Flask, context: Any) -> set[str]:
    """Return the revisions that the database is past."""
    from alembic.script import ScriptDirectory

    registered = app.extensions["migrate"]
    script = ScriptDirectory.from_config(registered.migrate.get_config(registered.directory))
    heads = context.get_current_heads()
    return {each.revision for each in script.iterate_revisions(heads, "base")} if heads else set()
