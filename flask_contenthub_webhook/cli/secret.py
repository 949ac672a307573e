"""``flask webhook secret``: make one."""

from __future__ import annotations

import click

from ..core.signatures import generate_secret
from .commands import PlainCommand

__all__ = ["secret_command"]


@click.command("secret", cls=PlainCommand, short_help="Make a secret.")
def secret_command() -> None:
    """Make a random secret that suits every signature scheme, and print it, and nothing else, on stdout."""
    click.echo(generate_secret())
