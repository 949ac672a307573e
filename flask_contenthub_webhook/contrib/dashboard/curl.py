"""A delivery as a curl command that is safe to paste: quoted, without secrets or control characters."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...core.redaction import redacted_url
from ...core.signatures import SCHEMES
from ...storage.queries import Row

if TYPE_CHECKING:
    from ...config.settings import Settings

__all__ = ["MOST_PASTED", "curl_command"]

MOST_PASTED = 32 * 1024
"""Largest body, in bytes, that is part of the command; a larger one has to be downloaded."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SET_BY_CURL = {"accept-encoding", "connection", "content-length", "host", "transfer-encoding"}
_PASTES_WELL = re.compile(r"[ -~\n]*")
"""A terminal may act on other characters: an escape sequence can end the paste and run the rest."""
_A_LINE = re.compile(r"[ -~]*")
_SOMEWHERE = "http://127.0.0.1:5000"
_CONTINUED = " \\\n  "


def curl_command(settings: Settings, delivery: Row, body: bytes, size: int) -> str:
    """Return the command.

    Args:
        settings: the app's configuration.
        delivery: the row; the secrets in its headers are redacted already.
        body: its body, or the beginning.
        size: bytes of the whole body.
    """
    headers = delivery["headers"] or {}
    options = [f"-H {shlex.quote(header)}" for header in _headers(headers)]
    command = [f"curl {shlex.quote(_url(settings, delivery))}", *options]
    if size > MOST_PASTED or len(body) < size:
        return _CONTINUED.join([*command, f"--data-binary @delivery-{delivery['id']}.bin"])
    text = body.decode("latin-1")
    if _PASTES_WELL.fullmatch(text):
        return _CONTINUED.join([*command, f"--data-raw {shlex.quote(text)}"])
    piped = f"printf %s {base64.b64encode(body).decode()} | base64 -d | "
    return piped + _CONTINUED.join([*command, "--data-binary @-"])


def _url(settings: Settings, delivery: Row) -> str:
    base = redacted_url(settings.callback_base_url or _SOMEWHERE).rstrip("/")
    sender = None if delivery["scheme"] in {None, *SCHEMES} else str(delivery["scheme"])
    if sender is not None and delivery["task_id"] is None:
        return f"{base}{settings.url_prefix}/callbacks/{quote(sender, safe='')}"
    url = f"{base}{settings.url_prefix}/callback/{quote(delivery['task_id'] or '', safe='', errors='replace')}"
    query = [] if sender is None else [f"sender={quote(sender, safe='')}"]
    query += [f"attempt={delivery['attempt']}"] if delivery["attempt"] is not None else []
    query += ["token=REDACTED"] if sender is not None or delivery["scheme"] == "url" else []
    return f"{url}?{'&'.join(query)}" if query else url


def _headers(headers: Mapping[str, str]) -> list[str]:
    """Return the headers that fit a command line; names are checked, since curl reads a file if one begins with @."""
    return [
        f"{name}: {value}" if value else f"{name};"
        for name, value in headers.items()
        if _HEADER_NAME.fullmatch(name) and name.lower() not in _SET_BY_CURL and _A_LINE.fullmatch(str(value))
    ]
