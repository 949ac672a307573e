"""Host projects with a migrations folder of their own, migrated in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_migrate import Config, Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.migrations import InstalledRevision, install_revisions

CONVENTION = {
    "ix": "idx_%(column_0_label)s",
    "uq": "unique_%(table_name)s_%(constraint_name)s",
    "ck": "check_%(table_name)s_%(constraint_name)s",
    "fk": "foreign_%(table_name)s_%(column_0_name)s",
    "pk": "primary_%(table_name)s",
}

_REVISION = '''"""{doc}"""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down_revision!r}
branch_labels = None
depends_on = None


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''


def revision_source(
    revision: str, down_revision: str | None, upgrade: str, downgrade: str = "pass", doc: str = "The host's."
) -> str:
    """Return the text of a revision with these bodies of its two functions."""
    return _REVISION.format(
        doc=doc, revision=revision, down_revision=down_revision, upgrade=upgrade, downgrade=downgrade
    )


def init_migrations(app: Flask, directory: Path, template: str = "flask") -> None:
    """Run `flask db init`, less what would set up the logging of this whole process, or warns."""
    with app.app_context():
        command.init(Config(str(directory / "alembic.ini")), str(directory), template=template)
    env = directory / "env.py"
    text = env.read_text()
    deprecated = ".db.get_engine()" if template == "flask" else ".db.get_engine(bind=bind_key)"
    engine = ".db.engine" if template == "flask" else ".db.engines.get(bind_key)"
    for real, quiet in (("fileConfig(config.config_file_name)", ""), (deprecated, engine)):
        assert real in text
        text = text.replace(real, quiet)
    env.write_text(text)


class MigratingHost:
    """An application and its migrations folder.

    Args:
        folder: an empty folder.
        url: an empty database.
        models: makes the host's models, and returns what `init_app` takes.
        naming_convention: of the host's metadata.
        engine: called with the engine, to set it up.
        init: make the migrations folder.
        template: of Flask-Migrate's, ``flask-multidb`` for one that upgrades every bind.
        binds: further databases.
        migrate: options of Flask-Migrate.
        **options: of `init_app`.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        models: Callable[[SQLAlchemy], Mapping[str, type[Any]]] | None = None,
        naming_convention: Mapping[str, str] | None = None,
        engine: Callable[[sa.Engine], None] | None = None,
        init: bool = True,
        template: str = "flask",
        binds: Mapping[str, str] | None = None,
        migrate: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.app = Flask("host")
        self.app.config.update(SQLALCHEMY_DATABASE_URI=url or None, TESTING=True)
        if binds:
            self.app.config["SQLALCHEMY_BINDS"] = dict(binds)
        metadata = sa.MetaData(naming_convention=dict(naming_convention)) if naming_convention else None
        self.db = SQLAlchemy(metadata=metadata)
        self.db.init_app(self.app)
        self.directory = folder / "migrations"
        Migrate(self.app, self.db, directory=str(self.directory), **migrate or {})
        self.webhook = ContentHubWebhook()
        self.webhook.init_app(self.app, self.db, **(models(self.db) if models else {}), **options)
        with self.app.app_context():
            self.engine = next(iter(self.db.engines.values()))
        if engine is not None:
            engine(self.engine)
        if init:
            self.init(template)

    def init(self, template: str = "flask") -> None:
        """`flask db init`."""
        init_migrations(self.app, self.directory, template)

    @property
    def versions(self) -> Path:
        return self.directory / "versions"

    def write_revision(
        self,
        revision: str,
        down_revision: str | None,
        upgrade: str,
        downgrade: str = "pass",
        doc: str = "The host's.",
        folder: Path | None = None,
    ) -> None:
        """A revision of the host's own."""
        text = revision_source(revision, down_revision, upgrade, downgrade, doc)
        ((folder or self.versions) / f"{revision}_host.py").write_text(text)

    def install(self, **options: Any) -> list[InstalledRevision]:
        return install_revisions(self.app, **options)

    # --- flask db ----------------------------------------------------------------------------------------------

    def upgrade(self, to: str = "head", *, x: Sequence[str] = ()) -> None:
        with self.app.app_context():
            command.upgrade(self._config(x), to)

    def downgrade(self, to: str, *, x: Sequence[str] = ()) -> None:
        with self.app.app_context():
            command.downgrade(self._config(x), to)

    def stamp(self, revision: str) -> None:
        with self.app.app_context():
            command.stamp(self._config(), revision)

    def check(self) -> None:
        """`flask db check`: raises where the models and the database are not the same."""
        with self.app.app_context():
            command.check(self._config())

    def check_without_a_migration(self) -> None:
        """The same question as a host's own test asks it; of one database, and its default schema."""
        with self.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), self.db.metadata) == []

    def sql(self, direction: str, to: str, *x: str) -> str:
        """`flask db upgrade --sql`, or downgrade."""
        output = io.StringIO()
        with self.app.app_context():
            config = self._config(x)
            config.output_buffer = output
            getattr(command, direction)(config, to, sql=True)
        return output.getvalue()

    def _config(self, x: Sequence[str] = ()) -> Config:
        config: Config = self.app.extensions["migrate"].migrate.get_config(str(self.directory), x_arg=list(x))
        return config

    # --- the database ------------------------------------------------------------------------------------------

    def execute(self, statement: str | sa.Executable, parameters: Any = None) -> None:
        statement = sa.text(statement) if isinstance(statement, str) else statement
        with self.engine.begin() as connection:
            connection.execute(statement, parameters)

    def rows(self, statement: str | sa.Executable) -> list[dict[str, Any]]:
        statement = sa.text(statement) if isinstance(statement, str) else statement
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]

    def scalar(self, statement: str) -> Any:
        with self.engine.connect() as connection:
            return connection.scalar(sa.text(statement))

    def inspect(self) -> sa.Inspector:
        return sa.inspect(self.engine)

    def schema(self) -> dict[str, Any]:
        """Everything of every table and view that a comparison before and after can use, without an order."""
        inspector = self.inspect()
        return {
            "views": sorted(inspector.get_view_names()),
            "tables": {
                table: {
                    "columns": {
                        column["name"]: (
                            str(column["type"]),
                            getattr(column["type"], "timezone", None),
                            column["nullable"],
                        )
                        for column in inspector.get_columns(table)
                    },
                    "primary key": inspector.get_pk_constraint(table)["constrained_columns"],
                    "indexes": sorted(
                        (str(index["name"]), tuple(index["column_names"]), bool(index["unique"]))
                        for index in inspector.get_indexes(table)
                    ),
                    "unique": sorted(
                        (str(unique["name"]), tuple(unique["column_names"]))
                        for unique in inspector.get_unique_constraints(table)
                    ),
                    "checks": sorted(
                        (str(check["name"]), check["sqltext"]) for check in inspector.get_check_constraints(table)
                    ),
                    "foreign keys": sorted(
                        (tuple(key["constrained_columns"]), key["referred_table"], str(key["options"]))
                        for key in inspector.get_foreign_keys(table)
                    ),
                }
                for table in inspector.get_table_names()
                if table != "alembic_version"
            },
        }
