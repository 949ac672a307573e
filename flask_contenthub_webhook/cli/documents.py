"""Output for programs: ``--json`` prints one document on stdout."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

__all__ = ["json_option", "print_document", "print_line"]

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Give a command ``--json``, passed as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def print_document(document: Mapping[str, Any]) -> None:
    """Print a JSON document in plain ASCII: times in ISO 8601 and UTC, durations in seconds, bytes as base64."""
    click.echo(json.dumps(document, indent=2, default=_plain))


def print_line(document: Mapping[str, Any]) -> None:
    """Print a JSON document on one line, at once."""
    click.echo(json.dumps(document, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    return str(value)
