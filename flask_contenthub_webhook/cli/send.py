"""``flask webhook send``: sign a test event and post it to the running application."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import click
import httpx

from ..core.events import BUILT_IN_EVENTS
from ..core.redaction import redacted_url
from ..core.signatures import SCHEMES, sign_headers
from ..errors import ConfigurationError
from ..runtime.state import get_state
from .commands import AppCommand
from .documents import json_option, print_document
from .http import describe_connection_error, http_client
from .parameters import read_attempt
from .sample_events import sample_event, to_body
from .terminal import escaped, pretty

if TYPE_CHECKING:
    from ..config.settings import Settings

__all__ = ["send_command"]

_ACCEPTED = {200, 202}


@click.command("send", cls=AppCommand, short_help="Sign a test event and post it to the running app.")
@click.argument("task_id")
@click.option("--event", default="completed", show_default=True, metavar="|".join([*BUILT_IN_EVENTS, "NAME"]))
@click.option("--result", metavar="JSON", help="Result object of a completed or a custom event.")
@click.option("--content", metavar="TEXT", help="Content of the result of a completed event.")
@click.option("--message", metavar="TEXT", help="Message of a failed or a progress event.")
@click.option("--percentage", type=click.FloatRange(0, 100), default=50.0, show_default=True)
@click.option("--body", type=click.File("rb"), help="Send this file unchanged; - is stdin.")
@click.option(
    "--scheme",
    type=click.Choice([*SCHEMES, "none"]),
    help="Signature scheme; default: url if allowed, else the first of WEBHOOK_SIGNATURE_SCHEMES, else none.",
)
@click.option("--url", metavar="URL", help="Complete URL to post to; default: the task's callback URL.")
@click.option("--base-url", metavar="URL", help="Replaces WEBHOOK_CALLBACK_BASE_URL.")
@click.option(
    "--attempt", type=read_attempt, metavar="N", default="current", show_default=True, help="Attempt, from 1."
)
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds to wait for the answer."
)
@json_option
def send_command(
    task_id: str,
    *,
    event: str,
    result: str | None,
    content: str | None,
    message: str | None,
    percentage: float,
    body: IO[bytes] | None,
    scheme: str | None,
    url: str | None,
    base_url: str | None,
    attempt: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Sign an event for TASK_ID, post it to the running application, and show the answer.

    Exit code 0 when it was accepted (200 or 202), else 1.
    """
    if body is not None and (result is not None or content is not None):
        raise click.UsageError("--body is the complete event; leave out --result and --content.")
    if url is not None and base_url is not None:
        raise click.UsageError("Give --url or --base-url, not both.")
    settings = get_state().settings
    scheme = _default_scheme(settings) if scheme is None else scheme
    if scheme != "none" and not settings.secrets:
        raise ConfigurationError("WEBHOOK_SECRET_KEY is empty, so nothing can be signed; use --scheme none.")
    now = datetime.now(UTC)
    if body is not None:
        raw = body.read()
    else:
        data = _result(result, content)
        raw = to_body(sample_event(event, task_id, now, result=data, message=message, percentage=percentage))
    target = _target(settings, task_id, attempt, scheme, url=url, base_url=base_url)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "flask-webhook-send",
        "X-Webhook-Event": _header(event),
        "X-Task-ID": _header(task_id),
        **_signature(scheme, settings, raw, now),
    }
    _post(target, raw, headers, scheme, timeout, as_json=as_json)


def _post(target: str, raw: bytes, headers: dict[str, str], scheme: str, timeout: float, *, as_json: bool) -> None:
    shown = redacted_url(target)
    try:
        with http_client(timeout) as client:
            answer = client.post(target, content=raw, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(
            escaped(f"{shown} could not be reached: {describe_connection_error(error)}")
        ) from error
    if as_json:
        print_document(
            {"url": shown, "scheme": scheme, "status": answer.status_code, "answer": _answer(answer), "sent": len(raw)}
        )
    else:
        click.echo(escaped(f"POST {shown} ({len(raw)} bytes, signed by: {scheme})"))
        click.echo(f"{answer.status_code} {escaped(answer.reason_phrase)}")
        content = _answer(answer)
        click.echo(escaped(content, lines=True) if isinstance(content, str) else pretty(content))
    if answer.status_code not in _ACCEPTED:
        raise click.exceptions.Exit(1)


def _default_scheme(settings: Settings) -> str:
    if not settings.secrets:
        return "none"
    return "url" if "url" in settings.signature_schemes else settings.signature_schemes[0]


def _result(result: str | None, content: str | None) -> dict[str, Any] | None:
    if result is None:
        return None if content is None else {"content": content}
    try:
        parsed = json.loads(result)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--result") from None
    if not isinstance(parsed, dict):
        raise click.BadParameter("must be a JSON object.", param_hint="--result")
    return parsed if content is None else {**parsed, "content": content}


def _target(
    settings: Settings, task_id: str, attempt: int | None, scheme: str, *, url: str | None, base_url: str | None
) -> str:
    """Return the URL to post to; only the scheme ``url`` leaves a token in it."""
    if url is not None and scheme != "url":
        return url
    if url is not None:
        named = httpx.URL(url).params.get("sender") if get_state().registry.has_names else None
        target = settings.callback_urls.address(url, task_id, attempt, named)
    else:
        target = settings.callback_urls.build(task_id, attempt, base_url=base_url)
    if scheme == "url" and "token=" not in target:
        raise ConfigurationError("WEBHOOK_SIGNATURE_SCHEMES leaves out url, so a token would not be accepted.")
    return target if scheme == "url" else str(httpx.URL(target).copy_remove_param("token"))


def _signature(scheme: str, settings: Settings, body: bytes, now: datetime) -> dict[str, str]:
    if scheme == "none":
        return {}
    try:
        message_id, timestamp = f"msg_{uuid.uuid4().hex}", int(now.timestamp())
        return sign_headers(scheme, body, settings.secrets[0], message_id=message_id, timestamp=timestamp)
    except ValueError as error:
        raise ConfigurationError(f"WEBHOOK_SECRET_KEY does not suit the scheme {scheme}: {error}") from None


def _header(text: str) -> str:
    """Escape what a header cannot carry."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _answer(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return answer.text
