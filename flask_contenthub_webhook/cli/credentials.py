"""``flask webhook secret`` and ``flask webhook url``: a new secret, and the callback URL that it protects."""

from __future__ import annotations

import click

from ..core.signatures import generate_secret
from ..runtime.state import get_state
from .commands import AppCommand, PlainCommand
from .documents import json_option, print_document
from .parameters import read_attempt

__all__ = ["secret_command", "url_command"]


@click.command("secret", cls=PlainCommand, short_help="Generate a secret.")
def secret_command() -> None:
    """Generate a random secret that suits every signature scheme, and print only that on stdout."""
    click.echo(generate_secret())


@click.command("url", cls=AppCommand, short_help="Print the callback URL of a task.")
@click.argument("task_id")
@click.option(
    "--attempt",
    type=read_attempt,
    default="1",
    metavar="N",
    show_default=True,
    help="The attempt that the URL is valid for: a number from 1, or current for any.",
)
@click.option("--base-url", metavar="URL", help="Replaces WEBHOOK_CALLBACK_BASE_URL.")
@json_option
def url_command(task_id: str, *, attempt: int | None, base_url: str | None, as_json: bool) -> None:
    """Print the callback URL of TASK_ID without asking the database. Its token allows anyone to complete the task."""
    url = get_state().settings.callback_urls.build(task_id, attempt, base_url=base_url)
    if as_json:
        print_document({"task_id": task_id, "attempt": attempt, "url": url})
    else:
        click.echo(url)
