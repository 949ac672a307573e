"""A callback to ourselves, from outside: posted to the base URL, for a task that does not exist.

The right answer is 404 ``task_not_found``: only this application gives it, and only to an authenticated request. Each
other answer has its own usual cause. A second request has a wrong token. Both appear in the history as refused.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from ...core.redaction import redacted_url
from ..http import describe_connection_error
from ..sample_events import sample_event, to_body
from .findings import DoctorContext, Finding, check, fail, ok, skip, warn

__all__ = ["check_callback"]

_TITLE = re.compile(r"<title[^>]*>([^<]{1,100})", re.IGNORECASE)
_STRIPPED = (
    "Let the reverse proxy pass the query string on as it is (nginx: no rewrite "
    "that ends in ?, and no variable in proxy_pass without $is_args$args)."
)
_UNCHANGED = "Let the reverse proxy pass requests on unchanged."
_NOT_US = (
    "Check the host, the port and the path of WEBHOOK_CALLBACK_BASE_URL, that WEBHOOK_URL_PREFIX is the same in the "
    "running app, and that the reverse proxy passes this path on."
)

_OUR_ANSWERS: dict[str | None, Finding] = {
    "signature_missing": fail(
        "arrived without its signature (403): a reverse proxy strips the query string.", _STRIPPED
    ),
    "signature_invalid": fail(
        "was refused because of its token (401): the running app has a different secret, or a reverse proxy changes "
        "the query string.",
        "Give the running app and this shell the same WEBHOOK_SECRET_KEY; restart the app after a change. "
        "If they are the same, a reverse proxy changes the path or the query string: let it pass both on as they are.",
    ),
    "webhook_disabled": fail(
        "was refused: callbacks are switched off in the running app.", "Set WEBHOOK_ENABLED=true there, and restart it."
    ),
    "address_not_allowed": warn(
        "was refused: this machine is not in WEBHOOK_ALLOWED_IPS of the running app, so nothing else could be checked.",
        "Make sure that the service's address is in WEBHOOK_ALLOWED_IPS; behind a reverse proxy use ProxyFix.",
    ),
    "client_certificate_required": warn(
        "was refused: the running app requires a client certificate (WEBHOOK_CLIENT_CERTS), so nothing else was "
        "checked.",
        "Try a callback from the service's machine, with its certificate.",
    ),
    "rate_limited": warn(
        "was refused by the rate limit of the running app (429), so nothing else could be checked.",
        "Try again, or raise WEBHOOK_RATE_LIMIT.",
    ),
    "unsupported_media_type": fail("arrived without its Content-Type (415).", _UNCHANGED),
    "invalid_json": fail("arrived without its body (400).", _UNCHANGED),
    "database_unavailable": fail(
        "was refused: the running app cannot use its database (503).",
        "See the findings about the database here, and the app's log.",
    ),
}
"""This extension's answers, as findings whose messages continue a sentence; by the code of the error."""


@check("callback")
def check_callback(context: DoctorContext) -> Iterator[Finding]:
    """Post to ourselves the way the service would."""
    settings = context.state.settings
    if not settings.enabled or settings.callback_base_url is None:
        yield skip("No callback was sent: there is no address for one.")
        return
    task_id = str(uuid.uuid4())
    url = settings.callback_urls.build(task_id, 1)
    base = redacted_url(settings.callback_base_url)
    try:
        answer = _post(context, url, task_id)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield fail(
            f"{base} cannot be reached from here: {describe_connection_error(error)}",
            "Start the app, make it reachable, or correct WEBHOOK_CALLBACK_BASE_URL.",
        )
        return
    context.note_clock("the base URL", answer)
    finding = _judge(answer, has_token="token=" in url) or _try_wrong_token(context, url, task_id)
    yield replace(finding, message=f"The callback posted to {base} {finding.message}")


def _post(context: DoctorContext, url: str, task_id: str) -> httpx.Response:
    body = to_body(sample_event("progress", task_id, datetime.now(UTC), percentage=0))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "flask-webhook-doctor",
        "X-Webhook-Event": "progress",
        "X-Task-ID": task_id,
    }
    return context.client.post(url, content=body, headers=headers)


def _try_wrong_token(context: DoctorContext, url: str, task_id: str) -> Finding:
    """Send a wrong token: if unsigned callbacks are allowed, only this shows that the query string gets lost."""
    if "token=" not in url:
        return ok("arrived; it carried no token, since no secret is set.")
    try:
        answer = _post(context, _with_wrong_token(url), task_id)
    except httpx.HTTPError as error:
        message = f"arrived; a second one did not: {describe_connection_error(error)}"
        return warn(message, "Run the doctor again.")
    if _code(answer) == "task_not_found":
        return fail(
            "arrived, but a wrong token was not noticed: a reverse proxy strips the query string, or the running app "
            "has no secret.",
            f"{_STRIPPED} And set WEBHOOK_REQUIRE_SIGNATURE=true.",
        )
    return ok("arrived; its token was accepted, and a wrong one refused.")


def _with_wrong_token(url: str) -> str:
    parts = urlsplit(url)
    query = [(name, "A" * 43 if name == "token" else value) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _judge(answer: httpx.Response, *, has_token: bool) -> Finding | None:
    """Explain an answer; None for the right one."""
    code = _code(answer)
    if code == "task_not_found":
        return None
    if code == "signature_missing" and not has_token:
        message = "was refused (403): no secret is set here to sign it with."
        return fail(message, "Set WEBHOOK_SECRET_KEY to that of the running app.")
    return _OUR_ANSWERS[code] if code in _OUR_ANSWERS else _judge_other(answer)


def _judge_other(answer: httpx.Response) -> Finding:
    """Explain an answer that does not come from this extension."""
    status, summary = answer.status_code, _summary(answer)
    if 300 <= status < 400:  # noqa: PLR2004
        to = redacted_url(answer.headers.get("Location", "nowhere"))
        return fail(
            f"was answered with a redirect ({status}) to {to}: the service follows it with GET, and the payload is "
            "lost.",
            "Set WEBHOOK_CALLBACK_BASE_URL to the final address (https, the right host), so that nothing redirects.",
        )
    if answer.is_success:
        return fail(
            f"was answered {status} by something else ({summary}): the service would consider its callbacks delivered, "
            "and they would be lost.",
            _NOT_US,
        )
    if status in {401, 407}:
        return fail(
            f"was stopped by a login in front of the app ({status}, {summary}).",
            "Let requests below the callback path pass without one; the app checks their signature.",
        )
    if status in {502, 503, 504}:
        return fail(
            f"reached a reverse proxy, which answered {status} ({summary}): the app behind it is down or does not "
            "answer.",
            "Start the app, and check where the reverse proxy looks for it.",
        )
    return fail(f"got an answer that is not this app's ({status}, {summary}).", _NOT_US)


def _code(answer: httpx.Response) -> str | None:
    """Return the error code, if this extension gave the answer."""
    try:
        error = answer.json().get("error")
        return str(error["code"]) if isinstance(error, dict) else None
    except (ValueError, AttributeError, KeyError, RecursionError):
        return None


def _summary(answer: httpx.Response) -> str:
    kind = answer.headers.get("Content-Type", "no content type").partition(";")[0]
    if kind == "text/html" and (title := _TITLE.search(answer.text[:10_000])):
        return f"an HTML page: {title[1].strip()}"
    return "an HTML page" if kind == "text/html" else kind
