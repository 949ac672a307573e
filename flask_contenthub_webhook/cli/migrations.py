"""``flask webhook migrations``: the packaged revisions, as files of the host's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from flask import current_app

from .commands import AppGroup
from .documents import json_option, print_document
from .terminal import escaped

if TYPE_CHECKING:
    from ..migrations import InstalledRevision

__all__ = ["migrations_group"]


@click.group("migrations", cls=AppGroup, short_help="Install the migrations of this extension.")
def migrations_group() -> None:
    """The tables of this extension, in the host's own migrations."""


@migrations_group.command("install")
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), help="The migrations; by default Flask-Migrate's."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@json_option
def install_command(directory: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Write the packaged revisions that are not there yet on top of the newest of yours; touches no database."""
    from ..migrations import install_revisions

    app = current_app._get_current_object()  # type: ignore[attr-defined]
    revisions = install_revisions(app, directory, dry_run=dry_run)
    if as_json:
        print_document({"dry_run": dry_run, "revisions": [_document(revision) for revision in revisions]})
        return
    for revision in revisions:
        done = "would be written" if dry_run else "written"
        what = done if revision.is_new else "there already"
        click.echo(escaped(f"{revision.revision} ({revision.title}): {what}, {revision.path}"))
        for note in revision.notes:
            click.echo(escaped(f"  Note: {note}"))
    if any(revision.is_new for revision in revisions) and not dry_run:
        click.echo("Now run `flask db upgrade`.")


def _document(revision: InstalledRevision) -> dict[str, object]:
    return {
        "revision": revision.revision,
        "down_revision": revision.down_revision,
        "title": revision.title,
        "path": str(revision.path),
        "is_new": revision.is_new,
        "notes": list(revision.notes),
    }
