"""The service: configured, and up."""

from __future__ import annotations

import os
import shutil

import httpx

from ...core.redaction import redacted_url
from ...creators import CliCreator, Creators, HttpCreator
from ...creators.registry import Registered
from ..http import describe_connection_error
from .findings import DoctorContext, Finding, check, fail, ok, warn

__all__ = ["check_creator"]


@check("creator")
def check_creator(context: DoctorContext) -> list[Finding]:
    """Ask an HTTP service for its health, or look for the program of a CLI one; a host's own creator is not checked."""
    creator, settings = context.state.creator, context.state.settings
    if isinstance(creator, Creators):
        return [_describe(context, entry) for entry in context.state.registry.entries]
    if creator is None:
        return [
            warn(
                "No service is configured: tasks can be neither submitted nor polled; only callbacks are accepted.",
                "Set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to init_app.",
            )
        ]
    if isinstance(creator, HttpCreator) and settings.creator_base_url is not None:
        return [_ask(context, settings.creator_base_url)]
    if isinstance(creator, CliCreator) and settings.creator_cli_path is not None:
        return [_look_for(settings.creator_cli_path)]
    return [_describe(context, entry) for entry in context.state.registry.entries]


def _describe(context: DoctorContext, entry: Registered) -> Finding:
    """Name a creator of the host's, and the URL for all of its jobs."""
    named = "The app's own creator is used" if entry.column is None else f"The creator {entry.name} is used"
    message = f"{named} ({type(entry.creator).__name__}); it was not called."
    base, prefix = context.state.settings.callback_base_url, context.state.settings.url_prefix
    has_url = entry.reads and entry.settings.enabled and context.state.guarded(entry).verifies_callbacks
    if has_url and base is not None:
        url = redacted_url(f"{base.rstrip('/')}{prefix}/callbacks/{entry.name}")
        message += f" A webhook for all its jobs goes to {url}."
    return ok(message)


def _ask(context: DoctorContext, base_url: str) -> Finding:
    """Call ``GET /health``, which does not crash content-creator."""
    service, key = f"The service at {redacted_url(base_url)}", context.state.settings.creator_api_key
    try:
        answer = context.client.get(f"{base_url}/health", headers={"Authorization": f"Bearer {key}"} if key else {})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"{service} is down: {describe_connection_error(error)}"
        return fail(message, "Start the service, or correct CREATOR_API_BASE_URL.")
    context.note_clock("the service", answer)
    status = answer.status_code
    if status in {401, 403}:
        message = f"{service} denied us access ({status})."
        return fail(message, "Set CREATOR_API_KEY to the key that the service, or its gateway, requires.")
    if answer.is_redirect:
        message = f"{service} answers with a redirect to {redacted_url(answer.headers['Location'])}."
        return fail(message, "Set CREATOR_API_BASE_URL to the final address.")
    if status == httpx.codes.NOT_FOUND:
        message = f"{service} answers, but has no /health: it may be a different program."
        return warn(message, "Check CREATOR_API_BASE_URL, including its path.")
    if not answer.is_success:
        return fail(f"{service} is unhealthy: /health answers {status}.", "Look at the service's log.")
    return ok(f"{service} is up.")


def _look_for(path: str) -> Finding:
    program = shutil.which(path)
    if program is None:
        problem = "exists, but cannot be executed" if os.path.exists(path) else "does not exist"  # noqa: PTH110 - as given
        message = f"The service's program {path} {problem}."
        return fail(message, "Set CREATOR_CLI_PATH to a program that this user may execute.")
    return ok(f"The service's program is {program}.")
