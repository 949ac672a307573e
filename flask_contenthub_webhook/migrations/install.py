"""Copies the packaged revisions into a host's migrations, on top of its head.

The copies are the host's: they import nothing of this package, so that an old database can still be upgraded when the
package's models have long become others. Nothing here touches a database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

from flask_contenthub_webhook.errors import WebhookError
from flask_contenthub_webhook.models import DeliveryMixin, GenerationTaskMixin
from flask_contenthub_webhook.state import get_state

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory
    from flask import Flask

__all__ = ["InstalledRevision", "MigrationError", "install_revisions"]

_FROM_MARK = "# --- filled in by `flask webhook migrations install` ---\n"
_TO_MARK = "# --- end ---\n"


class MigrationError(WebhookError):
    """The packaged revisions cannot be installed."""

    code = "migration_error"


@dataclass(frozen=True, slots=True)
class InstalledRevision:
    """One packaged revision, and where it is in the host's migrations.

    Args:
        revision: its id.
        title: what it does, in a line.
        path: its file.
        down_revision: the revision that it follows; None where it is the first of all.
        is_new: False where an earlier call had written it.
        source: what the file holds, or will hold (with ``dry_run``); empty where it is not new.
        notes: what the host should know about it.
    """

    revision: str
    title: str
    path: Path
    down_revision: str | None
    is_new: bool
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Packaged:
    revision: str
    file: str
    title: str
    of_tasks: bool


_PACKAGED = (
    _Packaged("contenthub0001", "contenthub0001_tasks.py", "the task table, made or completed", of_tasks=True),
    _Packaged("contenthub0002", "contenthub0002_deliveries.py", "the history of deliveries", of_tasks=False),
)


def install_revisions(
    app: Flask, directory: str | Path | None = None, *, dry_run: bool = False
) -> list[InstalledRevision]:
    """Write the packaged revisions that the host does not have yet into its ``migrations/versions``.

    Each follows the host's newest revision, so that there is still one head, and ``flask db upgrade`` applies it. The
    names of the tables and columns are those of the models that are registered on the application. A second call
    changes nothing.

    Args:
        app: the application, with Flask-Migrate and the extension registered.
        directory: the host's migrations folder; by default Flask-Migrate's.
        dry_run: only say what would be written.

    Returns:
        Every packaged revision, oldest first.

    Raises:
        MigrationError: there is no migrations folder, it has several heads, or the tables are not where plain
            ``flask db upgrade`` works; says what to do. Nothing was written.
    """
    with app.app_context():
        there = _revisions_there(_script_directory(app, directory))
        models = _models(app)
    if len(there.heads) > 1 and any(packaged.revision not in there.known for packaged in _PACKAGED):
        raise MigrationError(
            f"Your migrations have {len(there.heads)} heads ({', '.join(there.heads)}), and a new revision can only "
            "follow one. Merge them with `flask db merge heads`, then install again."
        )
    head = there.heads[0] if there.heads else None
    revisions: list[InstalledRevision] = []
    for packaged in _PACKAGED:
        if (found := there.known.get(packaged.revision)) is not None:
            down = found.down_revision if found.down_revision is None else str(found.down_revision)
            revisions.append(InstalledRevision(packaged.revision, packaged.title, Path(found.path), down, is_new=False))
            continue
        model = models[packaged.of_tasks]
        revisions.append(
            InstalledRevision(
                packaged.revision,
                packaged.title,
                there.folder / packaged.file,
                head,
                is_new=True,
                source=_source(packaged, model, head),
                notes=tuple(_notes(model, of_tasks=packaged.of_tasks)),
            )
        )
        head = packaged.revision
    if not dry_run:
        _write([revision for revision in revisions if revision.is_new])
    return revisions


# --- the host's migrations -------------------------------------------------------------------------------------


def _script_directory(app: Flask, directory: str | Path | None) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    extension = app.extensions.get("migrate")
    if extension is None:
        raise MigrationError(
            f"Flask-Migrate is not registered on the app {app.name!r}: add `migrate = Migrate(app, db)`, then run "
            "`flask db init` if you have no migrations yet."
        )
    folder = Path(directory if directory is not None else extension.directory)
    if not (folder / "env.py").is_file():
        raise MigrationError(
            f"There is no migrations folder at {folder.absolute()}: run `flask db init` first, or name the folder of "
            "your migrations with --directory."
        )
    return ScriptDirectory.from_config(extension.migrate.get_config(str(folder)))


class _There(NamedTuple):
    heads: list[str]
    folder: Path
    known: Mapping[str, Script]


def _revisions_there(script: ScriptDirectory) -> _There:
    from alembic.util import CommandError

    try:
        known = {each.revision: each for each in script.walk_revisions()}
        heads = sorted(script.get_heads())
        folder = Path(known[heads[0]].path).parent if heads else Path(script.versions)
    except (CommandError, KeyError) as error:
        raise MigrationError(f"Your migrations cannot be read: {error}. See what `flask db check` says.") from error
    return _There(heads, folder, known)


def _write(revisions: list[InstalledRevision]) -> None:
    written: list[Path] = []
    try:
        for revision in revisions:
            with revision.path.open("x", encoding="utf-8") as file:
                written.append(revision.path)
                file.write(revision.source)
    except OSError as error:
        for path in written:  # half of them would be worse than none
            path.unlink()
        raise MigrationError(f"The revision could not be written to {error.filename}: {error.strerror}.") from error


# --- the host's models -----------------------------------------------------------------------------------------


def _models(app: Flask) -> dict[bool, _Model]:
    state = get_state(app)
    return {
        True: _Model(state.task_model, GenerationTaskMixin, state.db.metadata),
        False: _Model(state.delivery_model, DeliveryMixin, state.db.metadata),
    }


class _Model:
    """A registered model, compared with the mixin that tells what it must have."""

    def __init__(self, model: type[Any], mixin: type[Any], metadata: sa.MetaData) -> None:
        mapper = sa.inspect(model)
        self.name = model.__name__
        self.table: sa.Table = mapper.local_table
        self._check_place(metadata)
        wanted = _columns_of(mixin, self.table.name)
        has = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
        self.lacks = sorted(wanted.keys() - has.keys())
        if self.lacks:
            raise MigrationError(f"The model {self.name} lacks {', '.join(self.lacks)}; mix in {mixin.__name__}.")
        self.renamed = {key: has[key].name for key in wanted if has[key].name != key}
        self.own = [
            key
            for key in wanted
            if repr(has[key].type) != repr(wanted[key].type) or has[key].nullable != wanted[key].nullable
        ]
        ours = {has[key].name for key in wanted}
        self.extra = [column.name for column in self.table.columns if column.name not in ours]

    def _check_place(self, metadata: sa.MetaData) -> None:
        if self.table.schema is not None or self.table.metadata is not metadata:
            where = f"the schema {self.table.schema!r}" if self.table.schema else "another bind than the default"
            raise MigrationError(
                f"The table of {self.name} is in {where}, for which there are no ready revisions: let `flask db "
                "migrate` write one from the model."
            )


def _columns_of(mixin: type[Any], table: str) -> Mapping[str, sa.Column[Any]]:
    """The mixin's columns, as a model of its own would have them."""
    base = type("Base", (DeclarativeBase,), {})
    model: Any = type("Model", (mixin, base), {"__tablename__": table})
    return {column.key: column for column in model.__table__.columns}


def _notes(model: _Model, *, of_tasks: bool) -> list[str]:
    notes: list[str] = []
    if model.extra:
        columns = ", ".join(model.extra)
        notes.append(
            f"{model.name} has columns of its own ({columns}). Where {model.table.name} is new to the database, run "
            "`flask db migrate` after the upgrade to add them."
        )
    if model.own:
        what = "where these exist, they stay as they are" if of_tasks else "the revision does not know these types"
        notes.append(
            f"{model.name} types {', '.join(model.own)} itself: {what}. See what `flask db check` says afterwards."
        )
    return notes


# --- the text --------------------------------------------------------------------------------------------------


def _source(packaged: _Packaged, model: _Model, down_revision: str | None) -> str:
    """The revision with the host's names between the marks."""
    template = (files(__package__) / "revisions" / packaged.file).read_text(encoding="utf-8")
    head, _, rest = template.partition(_FROM_MARK)
    _, _, body = rest.partition(_TO_MARK)
    filled = [
        f"revision = {json.dumps(packaged.revision)}",
        f"down_revision: str | None = {_literal(down_revision)}",
        f"TABLE = {_literal(model.table.name)}",
        f"NAMES: dict[str, str] = {_literal(model.renamed)}  # what the model calls a column otherwise",
    ]
    if packaged.of_tasks:
        own = f"({''.join(f'{_literal(key)}, ' for key in model.own)})" if model.own else "()"
        filled.append(f"OWN: tuple[str, ...] = {own}  # typed by the model in its own way: these stay as they are")
    head = head.replace("\nRevises:\n", f"\nRevises: {down_revision or ''}".rstrip() + "\n")
    return head + "\n".join(filled) + "\n" + body


def _literal(value: Any) -> str:
    """A Python literal in double quotes, as formatters want it."""
    return "None" if value is None else json.dumps(value, ensure_ascii=False)
