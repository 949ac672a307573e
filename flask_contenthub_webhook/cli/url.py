"""``flask webhook url``: the callback URL of a task."""

from __future__ import annotations

import click

from ..runtime.state import get_state
from .commands import AppCommand
from .documents import json_option, print_document
from .parameters import read_attempt

__all__ = ["url_command"]


@click.command("url", cls=AppCommand, short_help="Print the callback URL of a task.")
@click.argument("task_id")
@click.option(
    "--attempt",
    type=read_attempt,
    default="1",
    metavar="N",
    show_default=True,
    help="The attempt that the URL speaks for: a number from 1, or current for whichever is.",
)
@click.option("--base-url", metavar="URL", help="Instead of WEBHOOK_CALLBACK_BASE_URL.")
@json_option
def url_command(task_id: str, *, attempt: int | None, base_url: str | None, as_json: bool) -> None:
    """Print the callback URL of TASK_ID, token included: whoever has it can settle the task. Asks no database."""
    url = get_state().settings.callback_urls.build(task_id, attempt, base_url=base_url)
    if as_json:
        print_document({"task_id": task_id, "attempt": attempt, "url": url})
    else:
        click.echo(url)
