"""``flask webhook openapi``: the HTTP contract of the application."""

from __future__ import annotations

import click

from ..core.redaction import redacted_url
from ..runtime.state import get_state
from ..web.openapi import openapi
from .commands import AppCommand
from .documents import print_document

__all__ = ["openapi_command"]


@click.command("openapi", cls=AppCommand, short_help="Print the HTTP contract as OpenAPI 3.1.")
def openapi_command() -> None:
    """Print the routes, events, proofs and answers of this application as an OpenAPI 3.1 document.

    Its events, signature schemes, prefix and address are those of the configuration. Forwarded events are under
    `webhooks`.
    """
    state = get_state()
    settings = state.settings
    document = openapi(
        prefix=settings.url_prefix,
        server=settings.callback_base_url and redacted_url(settings.callback_base_url),
        schemes=settings.signature_schemes,
        custom_events=dict.fromkeys(state.custom_events),
        required=settings.require_signature,
        names_senders=state.registry.has_names,
    )
    print_document(document)
