"""The creator: named, and there."""

from __future__ import annotations

import os
import shutil

import httpx

from ...core.callback_urls import without_secrets
from ...creators import CliCreator, HttpCreator
from ..http import connection_words
from .findings import Examination, Finding, Level

__all__ = ["check_creator"]

_START_IT = "Start the creator, or set CREATOR_API_BASE_URL to where it is."


def check_creator(examination: Examination) -> list[Finding]:
    """Ask an HTTP creator for its health, look for the program of a CLI one; any other is the host's own."""
    creator, settings = examination.state.creator, examination.state.settings
    if creator is None:
        return [
            Finding(
                "creator",
                Level.WARN,
                "No creator is configured: tasks can neither be submitted nor polled, only callbacks are taken.",
                "Set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to init_app.",
            )
        ]
    if isinstance(creator, HttpCreator) and settings.creator_base_url is not None:
        return [_ask(examination, settings.creator_base_url)]
    if isinstance(creator, CliCreator) and settings.creator_cli_path is not None:
        return [_look_for(settings.creator_cli_path)]
    return [
        Finding("creator", Level.OK, f"The host's own creator is used ({type(creator).__name__}); it was not asked.")
    ]


def _ask(examination: Examination, base_url: str) -> Finding:
    """``GET /health``, which is no call that content-creator dies of."""
    url, shown = f"{base_url}/health", without_secrets(base_url)
    key = examination.state.settings.creator_api_key
    try:
        answer = examination.client.get(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        words = f"The creator at {shown} is down: {connection_words(error)}"
        return Finding("creator", Level.FAIL, words, _START_IT)
    examination.note_clock("creator", answer)
    if answer.status_code in {401, 403}:
        words = f"The creator at {shown} does not let us in ({answer.status_code})."
        return Finding(
            "creator", Level.FAIL, words, "Set CREATOR_API_KEY to the key that it, or its gateway, asks for."
        )
    if answer.is_redirect:
        words = f"The creator at {shown} answers with a redirect to {without_secrets(answer.headers['Location'])}."
        return Finding("creator", Level.FAIL, words, "Set CREATOR_API_BASE_URL to the final address.")
    if answer.status_code == httpx.codes.NOT_FOUND:
        words = f"Something answers at {shown}, but it has no /health: it may not be the creator."
        return Finding("creator", Level.WARN, words, "Check CREATOR_API_BASE_URL, its path included.")
    if not answer.is_success:
        words = f"The creator at {shown} is not well: /health answers {answer.status_code}."
        return Finding("creator", Level.FAIL, words, "Look into the creator's log.")
    return Finding("creator", Level.OK, f"The creator at {shown} is up.")


def _look_for(path: str) -> Finding:
    found = shutil.which(path)
    if found is None:
        problem = "is there, but cannot be run" if os.path.exists(path) else "is not there"  # noqa: PTH110 - as given
        words = f"The creator's program {path} {problem}."
        return Finding("creator", Level.FAIL, words, "Set CREATOR_CLI_PATH to a program that this user may run.")
    return Finding("creator", Level.OK, f"The creator's program is {found}.")
