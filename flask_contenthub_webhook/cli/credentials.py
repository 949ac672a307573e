"""``flask webhook secret`` and ``flask webhook url``: a new secret, and the callback URL that it protects."""

from __future__ import annotations

import click

from ..core.signatures import generate_secret
from ..runtime.state import get_state
from ..web.callback_tokens import callback_url
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
@click.option("--creator", metavar="NAME", help="The task's creator, if there are several; by default the first.")
@json_option
def url_command(task_id: str, *, attempt: int | None, base_url: str | None, creator: str | None, as_json: bool) -> None:
    """Print the callback URL of TASK_ID without using the database. Its token allows anyone to complete the task."""
    try:
        url = callback_url(get_state(), task_id, attempt, base_url=base_url, creator=creator)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--creator") from None
    if as_json:
        print_document({"task_id": task_id, "attempt": attempt, "url": url})
    else:
        click.echo(url)
