"""``flask webhook conform``: whether a receiver believes what is right, and refuses what is wrong."""

from __future__ import annotations

from collections.abc import Mapping

import click
import httpx

from ..testing.conformance import FAMILIES, Difference, check_receiver, make_vectors
from .commands import PlainCommand
from .documents import json_option, print_document
from .http import http_client
from .terminal import Screen, counted, escaped

__all__ = ["conform_command"]


@click.command("conform", cls=PlainCommand, short_help="Send right and wrong signatures to a receiver.")
@click.argument("url")
@click.option(
    "--secret",
    envvar="WEBHOOK_SECRET_KEY",
    required=True,
    help="The receiver's secret; better in the environment (WEBHOOK_SECRET_KEY), where other users cannot see it.",
)
@click.option(
    "--scheme",
    "families",
    multiple=True,
    type=click.Choice(FAMILIES),
    help="Only this scheme. Repeatable; by default all.",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds for each request."
)
@json_option
def conform_command(url: str, secret: str, families: tuple[str, ...], timeout: float, *, as_json: bool) -> None:
    """Send test vectors to URL, a receiver of callbacks, and list those that it answers wrongly.

    The last segment of the URL is the task, which need not exist. 400, 401 and 403 count as refused, any other answer
    below 500 as believed. Exit code 1 if any answer is wrong.
    """
    vectors = make_vectors(secret.split(",", maxsplit=1)[0].strip(), url=url, families=families or FAMILIES)
    with http_client(timeout) as client, Screen().progress("Sending", len(vectors)) as on_progress:

        def post(to: str, body: bytes, headers: Mapping[str, str]) -> int | None:
            on_progress(1)
            try:
                return client.post(to, content=body, headers=dict(headers)).status_code
            except httpx.HTTPError:
                return None

        differences = list(check_receiver(post, url, vectors))
    if as_json:
        print_document({"vectors": len(vectors), "differences": [_document(each) for each in differences]})
    else:
        for each in differences:
            click.echo(escaped(str(each)))
        click.echo(f"{len(vectors)} vectors, {counted(len(differences), 'difference', 'differences')}.")
    if differences:
        raise click.exceptions.Exit(1)


def _document(difference: Difference) -> dict[str, object]:
    vector = difference.vector
    return {
        "scheme": vector.family,
        "vector": vector.name,
        "must_be": "believed" if vector.believed else "refused",
        "status": difference.status,
        "why": vector.why,
    }
