"""Callback URLs for code of the host's: made, and checked in a view of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..core.signatures import Credentials, verify
from ..errors import InvalidPayload, SignatureMissing

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["ATTEMPT", "callback_url", "check_token", "read_attempt"]

ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")


def callback_url(
    state: WebhookState, task_id: str, attempt: int | None, *, base_url: str | None = None, creator: str | None = None
) -> str:
    """Return the URL under which a creator reports on a task.

    Args:
        state: the application's state.
        task_id: our id of the task.
        attempt: the attempt, from 1; None for whichever is current.
        base_url: replaces WEBHOOK_CALLBACK_BASE_URL.
        creator: the name of the task's creator; None for the first one.

    Raises:
        ConfigurationError: there is no base URL.
        ValueError: there is no such creator.
    """
    registry = state.registry
    entry = registry.first if creator is None else registry.sender(creator)
    if entry is None and creator is not None:
        names = ", ".join(each.name for each in registry.entries)
        raise ValueError(f"creator is {creator!r}; it must be one of {names or 'none'}.")
    sender = registry.url_name(entry)
    return state.settings.callback_urls.build(task_id, attempt, base_url=base_url, sender=sender)


def check_token(state: WebhookState, /, task_id: str, query: Mapping[str, str]) -> int | None:  # noqa: D417 - as hosts read it
    """Check the token of a callback URL in a view of the host's; return the attempt that it vouches for.

    Call it before anything of the request is believed, and pass the attempt to :class:`.WebhookHandler`.

    Args:
        task_id: the task that the URL names.
        query: the parameters of the URL, such as ``request.args``.

    Returns:
        The attempt; None if the URL is for whichever attempt is current.

    Raises:
        SignatureMissing: there is no token, or this application takes none.
        SignatureInvalid: it was made for another task, attempt or sender, or with another secret.
        InvalidPayload: the attempt is not a number.
    """
    settings, token = state.settings, query.get("token")
    if token is None or "url" not in settings.signature_schemes or not settings.secrets:
        raise SignatureMissing
    attempt = read_attempt(query.get("attempt"))
    sender = query.get("sender") if state.registry.has_names else None
    credentials = Credentials(token=token, task_id=task_id, attempt=attempt, sender=sender)
    verify(credentials, schemes=("url",), secrets=settings.secrets, tolerance=0, now=state.clock())
    return attempt


def read_attempt(text: str | None) -> int | None:
    """Return the number of an attempt, from 1; None if there is none.

    Raises:
        InvalidPayload: it is not one.
    """
    if text is None:
        return None
    if not ATTEMPT.fullmatch(text):
        raise InvalidPayload(f"`attempt` must be a whole number from 1, not {text[:40]!a}.")
    return int(text)
