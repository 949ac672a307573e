"""``flask webhook migrations``: the packaged revisions, as files of the host's own."""

from __future__ import annotations

import click
from flask import current_app

from .commands import AppGroup

__all__ = ["migrations_group"]


@click.group("migrations", cls=AppGroup, short_help="Install the migrations of this extension.")
def migrations_group() -> None:
    """The tables of this extension, in the host's own migrations."""
