"""Copy the packaged revisions into a host's migrations, on top of its head, without touching a database.

The copies belong to the host. They import nothing from this package, so that an old database can still be upgraded
after the package's models have changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

from ..errors import WebhookError
from ..models.delivery import DeliveryMixin
from ..models.task import GenerationTaskMixin
from ..runtime.state import get_state

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory
    from flask import Flask

__all__ = ["InstalledRevision", "MigrationError", "install_revisions"]

_NO_DEFAULT_DATABASE = (
    "There is no default database, and the env.py of Flask-Migrate's templates stops without one: set "
    "SQLALCHEMY_DATABASE_URI, too, if only to sqlite:///unused.db."
)
_FROM_MARK = "# --- filled in by `flask webhook migrations install` ---\n"
_TO_MARK = "# --- end ---\n"
_ENGINE_FROM_MARK = "# --- the engine ---\n"
_ENGINE_TO_MARK = "# --- end of the engine ---\n"


class MigrationError(WebhookError, code="migration_error"):
    """The packaged revisions cannot be installed."""


@dataclass(frozen=True, slots=True)
class InstalledRevision:
    """A packaged revision, and its place in the host's migrations.

    Args:
        revision: its id.
        title: its purpose, in a line.
        path: its file.
        down_revision: the revision that it follows; None if it is the first one.
        is_new: False if an earlier call had written it.
        source: the contents of the file, also with ``dry_run``; empty if it is not new.
        notes: remarks for the host.
    """

    revision: str
    title: str
    path: Path
    down_revision: str | None
    is_new: bool
    source: str = ""
    notes: tuple[str, ...] = ()


class _Subject(NamedTuple):
    """A model that a revision is about, and the revision's constants for its names."""

    mixin: type[Any]
    table: str = "TABLE"
    names: str = "NAMES"
    own: str = ""
    adds: tuple[str, ...] = ()
    """The columns that it adds to the table; if empty, it creates the table with all columns that no other adds."""
    indexes: tuple[str, ...] = ()
    """Columns of an earlier revision that it indexes."""


@dataclass(frozen=True, slots=True)
class _Packaged:
    revision: str
    file: str
    title: str
    subjects: tuple[_Subject, ...]
    makes_own_tables: bool = False


_PACKAGED = (
    _Packaged(
        "contenthub0001",
        "contenthub0001_tasks.py",
        "the task table, made or completed",
        (_Subject(GenerationTaskMixin, own="OWN"),),
    ),
    _Packaged(
        "contenthub0002", "contenthub0002_deliveries.py", "the history of deliveries", (_Subject(DeliveryMixin),)
    ),
    _Packaged(
        "contenthub0003",
        "contenthub0003_queues.py",
        "what queues, forwarding and alerts need",
        (
            _Subject(GenerationTaskMixin, "TASKS", "TASK_NAMES", adds=("forward_to",)),
            _Subject(
                DeliveryMixin,
                "DELIVERIES",
                "DELIVERY_NAMES",
                adds=("claimed_until",),
                indexes=("task_id", "id", "next_retry_at"),
            ),
        ),
        makes_own_tables=True,
    ),
)


def install_revisions(
    app: Flask, directory: str | Path | None = None, *, dry_run: bool = False
) -> list[InstalledRevision]:
    """Write the packaged revisions that the host lacks into its ``migrations/versions``.

    Each follows the host's newest revision, so that there is still one head, and ``flask db upgrade`` applies it. Its
    tables and columns are named as in the models that are registered on the application.

    Args:
        app: the application, with Flask-Migrate and the extension registered.
        directory: the host's migrations folder; Flask-Migrate's by default.
        dry_run: write nothing.

    Returns:
        Every packaged revision, oldest first.

    Raises:
        MigrationError: there is no migrations folder, it has several heads, or plain ``flask db upgrade`` would not
            reach the tables; the message says what to do. Nothing was written.
    """
    with app.app_context():
        host = _read_migrations(_script_directory(app, directory))
        models = _models(app)
        place = _place(app, host, list(models.values()))
    if len(host.heads) > 1 and any(packaged.revision not in host.known for packaged in _PACKAGED):
        raise MigrationError(
            f"Your migrations have {len(host.heads)} heads ({', '.join(host.heads)}), and a new revision can only "
            "follow one. Merge them with `flask db merge heads`, then install again."
        )
    head, notes = host.heads[0] if host.heads else None, place.notes
    revisions: list[InstalledRevision] = []
    for packaged in _PACKAGED:
        if (script := host.known.get(packaged.revision)) is not None:
            down = script.down_revision if script.down_revision is None else str(script.down_revision)
            installed = InstalledRevision(packaged.revision, packaged.title, Path(script.path), down, is_new=False)
            revisions.append(installed)
            continue
        about = [(subject, models[subject.mixin].seen_by(subject)) for subject in packaged.subjects]
        revisions.append(
            InstalledRevision(
                packaged.revision,
                packaged.title,
                host.folder / packaged.file,
                head,
                is_new=True,
                source=_source(packaged, about, head, place),
                notes=(*notes, *(note for subject, model in about for note in _notes(subject, model))),
            )
        )
        head, notes = packaged.revision, ()
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


class _Migrations(NamedTuple):
    heads: list[str]
    folder: Path
    known: Mapping[str, Script]
    knows_binds: bool
    """True with Flask-Migrate's template for several databases, which tells each revision the one it acts on."""


def _read_migrations(script: ScriptDirectory) -> _Migrations:
    from alembic.util import CommandError

    try:
        known = {each.revision: each for each in script.walk_revisions()}
        heads = sorted(script.get_heads())
        folder = Path(known[heads[0]].path).parent if heads else _first_folder(script)
        knows_binds = "engine_name" in Path(script.dir, "env.py").read_text(encoding="utf-8")
    except (CommandError, KeyError) as error:
        raise MigrationError(f"Your migrations cannot be read: {error}. See what `flask db check` says.") from error
    return _Migrations(heads, folder, known, knows_binds)


def _first_folder(script: ScriptDirectory) -> Path:
    return Path(next(iter(script.version_locations or ()), None) or script.versions)


def _write(revisions: list[InstalledRevision]) -> None:
    written: list[Path] = []
    try:
        for revision in revisions:
            revision.path.parent.mkdir(parents=True, exist_ok=True)  # git keeps no empty folder
            with revision.path.open("x", encoding="utf-8") as file:
                written.append(revision.path)
                file.write(revision.source)
    except OSError as error:
        for path in written:  # remove partial output
            path.unlink()
        raise MigrationError(f"The revision could not be written to {error.filename}: {error.strerror}.") from error


# --- the host's models -----------------------------------------------------------------------------------------


def _models(app: Flask) -> dict[type[Any], _Model]:
    state = get_state(app)
    models = {GenerationTaskMixin: state.task_model, DeliveryMixin: state.delivery_model}
    return {mixin: _Model(model, mixin) for mixin, model in models.items()}


class _Place(NamedTuple):
    """The place of all tables, and the names of those that are always ours."""

    bind: str | None
    schema: str | None
    forwards: str
    attempts: str
    alerts: str
    notes: tuple[str, ...]


def _place(app: Flask, host: _Migrations, models: Sequence[_Model]) -> _Place:
    state = get_state(app)
    db, first = state.database.db, models[0]
    bind = first.table.metadata.info.get("bind_key")
    for model in models:
        if model.table.metadata is not db.metadatas.get(bind):
            raise MigrationError(
                f"The table of {model.name} is not in the metadata of your Flask-SQLAlchemy object, "
                "where Flask-Migrate looks: write a revision from the model with Alembic."
            )
        if model.table.schema != first.table.schema:
            raise MigrationError(
                f"The tables of {first.name} and {model.name} are in different schemas, for which there are no ready "
                "revisions: let `flask db migrate` write one from the models."
            )
    if bind is not None and not host.knows_binds:
        raise MigrationError(
            f"The table of {first.name} is in the bind {bind!r}, and your migrations/env.py upgrades only the default "
            "database: begin a migrations folder with `flask db init --multidb`, then install again."
        )
    own = (state.models.forward, state.models.forward_attempt, state.models.alert)
    forwards, attempts, alerts = (model.__table__.name for model in own)
    notes = () if None in db.engines else (_NO_DEFAULT_DATABASE,)
    return _Place(bind, first.table.schema, forwards, attempts, alerts, notes)


class _Seen(NamedTuple):
    """The facts about a model that one revision needs."""

    name: str
    table: str
    renamed: Mapping[str, str]
    own: list[str]
    extra: list[str]


class _Model:
    """A registered model, compared with its mixin."""

    def __init__(self, model: type[Any], mixin: type[Any]) -> None:
        mapper = sa.inspect(model)
        self.name = model.__name__
        self.table: sa.Table = mapper.local_table
        self._wanted = _columns_of(mixin, self.table.name)
        self._has = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}

    def seen_by(self, subject: _Subject) -> _Seen:
        """Return the model without the columns that other revisions add."""
        added = {key for packaged in _PACKAGED for each in packaged.subjects for key in each.adds}
        keys = [key for key in self._wanted if (key in subject.adds if subject.adds else key not in added)]
        ours = {self._has[key].name for key in self._wanted}
        return _Seen(
            self.name,
            self.table.name,
            renamed={key: self._has[key].name for key in (*keys, *subject.indexes) if self._has[key].name != key},
            own=[key for key in keys if self._is_typed_otherwise(key)],
            extra=[] if subject.adds else [column.name for column in self.table.columns if column.name not in ours],
        )

    def _is_typed_otherwise(self, key: str) -> bool:
        has, wanted = self._has[key], self._wanted[key]
        return repr(has.type) != repr(wanted.type) or has.nullable != wanted.nullable


def _columns_of(mixin: type[Any], table: str) -> Mapping[str, sa.Column[Any]]:
    """Return the columns of the mixin."""
    base = type("Base", (DeclarativeBase,), {})
    model: Any = type("Model", (mixin, base), {"__tablename__": table})
    return {column.key: column for column in model.__table__.columns}


def _notes(subject: _Subject, model: _Seen) -> list[str]:
    notes: list[str] = []
    if model.extra:
        columns = ", ".join(model.extra)
        notes.append(
            f"{model.name} has further columns ({columns}). Where {model.table} is new to the database, run "
            "`flask db migrate` after the upgrade to add them."
        )
    if model.own:
        keeps = subject.own or subject.adds
        what = "where these exist, they stay as they are" if keeps else "the revision does not know these types"
        notes.append(
            f"{model.name} types {', '.join(model.own)} itself: {what}. See what `flask db check` says afterwards."
        )
    return notes


# --- the text --------------------------------------------------------------------------------------------------


def _source(packaged: _Packaged, about: list[tuple[_Subject, _Seen]], down_revision: str | None, place: _Place) -> str:
    """Fill in the host's names between the marks."""
    template = _with_engine(_packaged_text(packaged.file))
    head, _, rest = template.partition(_FROM_MARK)
    _, _, body = rest.partition(_TO_MARK)
    filled = [
        f"revision = {json.dumps(packaged.revision)}",
        f"down_revision: str | None = {_literal(down_revision)}",
    ]
    for subject, model in about:
        filled += [
            f"{subject.table} = {_literal(model.table)}",
            f"{subject.names}: dict[str, str] = {_literal(model.renamed)}  # what the model calls a column otherwise",
        ]
        if subject.own:
            own = f"({''.join(f'{_literal(key)}, ' for key in model.own)})" if model.own else "()"
            comment = "typed by the model in its own way: these stay as they are"
            filled.append(f"{subject.own}: tuple[str, ...] = {own}  # {comment}")
    if packaged.makes_own_tables:
        filled += [f"{key.upper()} = {_literal(getattr(place, key))}" for key in ("forwards", "attempts", "alerts")]
    filled += [
        f"SCHEMA: str | None = {_literal(place.schema)}",
        f"BIND = {_literal(place.bind or '')}  # the database, where Flask-Migrate upgrades several",
    ]
    head = head.replace("\nRevises:\n", f"\nRevises: {down_revision or ''}".rstrip() + "\n")
    return head + "\n".join(filled) + "\n" + body


def _packaged_text(file: str) -> str:
    return (files(__package__) / "revisions" / file).read_text(encoding="utf-8")


def _with_engine(template: str) -> str:
    """Put the shared part in the place of its import: a copy depends on no other file."""
    before, mark, rest = template.partition(_ENGINE_FROM_MARK)
    if not mark:
        return template
    _, end, after = rest.partition(_ENGINE_TO_MARK)
    imports, _, code = _packaged_text("engine.py").partition(_ENGINE_FROM_MARK)
    _, _, imports = imports.partition("from __future__ import annotations\n")
    needed = [line for line in imports.splitlines() if line and line not in before.splitlines()]
    code, _, _ = code.partition(_ENGINE_TO_MARK)
    return "".join([before, "\n".join(needed), "\n\n", mark, code, end, after])


def _literal(value: Any) -> str:
    """Return a Python literal in double quotes, as formatters want it."""
    return "None" if value is None else json.dumps(value, ensure_ascii=False)
