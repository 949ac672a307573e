"""``flask webhook migrations``: write the packaged revisions into the host's migrations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from flask import current_app

from .commands import AppGroup
from .documents import json_option, print_document
from .terminal import escaped

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
