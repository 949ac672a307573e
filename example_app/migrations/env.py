"""The environment of `flask db`, which uses the application's own engine."""

from __future__ import annotations

from typing import Any

import click
from alembic import context
from flask import current_app

db = current_app.extensions["migrate"].db


def say(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:  # noqa: ARG001 - Alembic names them in its call
    """Print the revision that is applied."""
    click.echo(f"{'upgrade' if step.is_upgrade else 'downgrade'} {step.up_revision_id}: {step.up_revision.doc}")


def configure(**options: Any) -> None:
    context.configure(
        target_metadata=db.metadata,
        render_as_batch=db.engine.dialect.name == "sqlite",  # SQLite changes a table by copying it
        on_version_apply=say,
        **options,
    )


def migrate_offline() -> None:
    """Print the SQL instead of running it: `flask db upgrade --sql`."""
    configure(url=db.engine.url.render_as_string(hide_password=False), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def migrate_online() -> None:
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            # Copying a table drops the old one, which with foreign keys on would delete, or refuse, what refers to it.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.commit()  # Alembic would leave the commit to the code that began the transaction
        configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
        connection.invalidate()  # so that no later user of the pool gets a connection without foreign keys


if context.is_offline_mode():
    migrate_offline()
else:
    migrate_online()
