"""``flask webhook migrations``: write the packaged revisions into the host's migrations, and say what they will do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from flask import current_app

from .commands import AppGroup
from .documents import json_option, print_document
from .terminal import counted, escaped

__all__ = ["migrations_group"]


@click.group("migrations", cls=AppGroup, short_help="Install the migrations of this extension.")
def migrations_group() -> None:
    """Migrations for the tables of this extension."""


@migrations_group.command("install")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="The migrations folder; default: Flask-Migrate's.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be written.")
@json_option
def install_command(directory: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Write the packaged revisions that you do not have yet on top of your newest one, without touching a database."""
    from ..migrations import install_revisions

    app = current_app._get_current_object()  # type: ignore[attr-defined]
    revisions = install_revisions(app, directory, dry_run=dry_run)
    if as_json:
        documents = [{name: value for name, value in asdict(r).items() if name != "source"} for r in revisions]
        print_document({"dry_run": dry_run, "revisions": documents})
        return
    for revision in revisions:
        status = ("would be written" if dry_run else "written") if revision.is_new else "exists already"
        click.echo(escaped(f"{revision.revision} ({revision.title}): {status}, {revision.path}"))
        for note in revision.notes:
            click.echo(escaped(f"  Note: {note}"))
    if any(revision.is_new for revision in revisions) and not dry_run:
        click.echo("Now run `flask db upgrade`.")


@migrations_group.command("plan")
@json_option
def plan_command(*, as_json: bool) -> None:
    """Show what `flask db upgrade` would do here: each step, what its lock blocks, and about how long it takes.

    The database is only read. The times are guesses from the sizes of the tables.
    """
    from ..migrations import plan_revisions

    sizes, revisions = plan_revisions(current_app._get_current_object())  # type: ignore[attr-defined]
    if as_json:
        tables = {table: size._asdict() for table, size in sizes.items()}
        print_document({"tables": tables, "revisions": [asdict(revision) for revision in revisions]})
        return
    for table, (rows, size) in sizes.items():
        click.echo(escaped(f"{table}: about {counted(rows, 'row', 'rows')}, {size / 1_000_000:.0f} MB"))
    for revision in revisions:
        click.echo(f"\n{revision.revision}:{' applied' if revision.applied else ''}")
        for number, step in enumerate(revision.steps, start=1):
            work = ["copies the table"] if step.rewrites else []
            work += [f"about {step.seconds:.0f} s"] if step.seconds >= 1 else []
            click.echo(escaped(f"  {number}. {', '.join([step.title, *work])}"))
            click.echo(escaped(f"     stops: {step.lock}"))
        for column, type_ in revision.kept:
            click.echo(escaped(f"  {column} stays {type_}"))
