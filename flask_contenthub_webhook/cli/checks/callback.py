"""Whether a callback gets here from outside: one is posted to the base URL, about a task that does not exist.

The right answer is 404 ``task_not_found``: it is given by this application alone, and only to whom it believes. Each
other answer has its own usual cause. The request stands in the history as a refused one.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from ...core.callback_urls import without_secrets
from ..http import connection_words
from ..sample_events import sample_event, to_body
from .findings import Examination, Finding, Level

__all__ = ["check_callback"]

_NAME = "callback"
_TITLE = re.compile(r"<title[^>]*>([^<]{1,100})", re.IGNORECASE)
_STRIPPED = (
    "Let the reverse proxy pass the query string on as it is (nginx: no rewrite "
    "that ends in ?, and no variable in proxy_pass without $is_args$args)."
)
_NOT_US = (
    "Check the host, the port and the path of WEBHOOK_CALLBACK_BASE_URL, that WEBHOOK_URL_PREFIX is the same in the "
    "running app, and that the reverse proxy passes this path on."
)

_CANNOT_TRY = "so the rest was not tried"

_OURS: dict[str | None, tuple[Level, str, str]] = {
    "signature_missing": (
        Level.FAIL,
        "it came without its signature (403): a reverse proxy strips the query string.",
        _STRIPPED,
    ),
    "signature_invalid": (
        Level.FAIL,
        (
            "its token was not believed (401): the running app has another secret, or a reverse proxy changes the "
            "query string."
        ),
        (
            "Give the running app and this shell the same WEBHOOK_SECRET_KEY; restart the app after a change. "
            "If they are the same, a reverse proxy changes the path or the query string: let it pass both on as they "
            "are."
        ),
    ),
    "webhook_disabled": (
        Level.FAIL,
        "the running app has callbacks switched off.",
        "Set WEBHOOK_ENABLED=true there, and restart it.",
    ),
    "address_not_allowed": (
        Level.WARN,
        f"the running app does not let this machine in (WEBHOOK_ALLOWED_IPS), {_CANNOT_TRY}.",
        "Make sure that the creator's address is in WEBHOOK_ALLOWED_IPS; behind a reverse proxy use ProxyFix.",
    ),
    "client_certificate_required": (
        Level.WARN,
        f"the running app asks for a client certificate (WEBHOOK_CLIENT_CERTS), {_CANNOT_TRY}.",
        "Try a callback from the creator's machine, with its certificate.",
    ),
    "rate_limited": (
        Level.WARN,
        f"the running app has no time for more requests (429), {_CANNOT_TRY}.",
        "Try again, or raise WEBHOOK_RATE_LIMIT.",
    ),
    "unsupported_media_type": (
        Level.FAIL,
        "its Content-Type did not arrive (415).",
        "Let the reverse proxy pass requests on unchanged.",
    ),
    "invalid_json": (
        Level.FAIL,
        "its body did not arrive (400).",
        "Let the reverse proxy pass requests on unchanged.",
    ),
    "database_unavailable": (
        Level.FAIL,
        "the running app cannot use its database (503).",
        "See what is said of the database here, and the app's log.",
    ),
}
"""What this extension answers, what it means, and what to do about it; by the code of the error."""


def check_callback(examination: Examination) -> list[Finding]:
    """Post to ourselves the way the creator would."""
    settings = examination.state.settings
    if not settings.enabled or settings.callback_base_url is None:
        return [Finding(_NAME, Level.SKIP, "No callback was tried: there is no address for one.")]
    task_id = str(uuid.uuid4())
    url = settings.callback_urls.build(task_id, 1)
    shown = f"{settings.callback_base_url} was posted a callback, and"
    try:
        answer = _post(examination, url, task_id)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return [
            Finding(
                _NAME,
                Level.FAIL,
                f"{settings.callback_base_url} cannot be reached from here: {connection_words(error)}",
                "Start the app, open the way to it, or correct WEBHOOK_CALLBACK_BASE_URL.",
            )
        ]
    examination.note_clock("the base URL", answer)
    finding = _judge(answer, shown, has_token="token=" in url)
    if finding is not None:
        return [finding]
    if "token=" not in url:
        return [Finding(_NAME, Level.OK, f"{shown} it arrived; it carried no token, since there is none.")]
    return [_try_wrong_token(examination, url, task_id, shown)]


def _post(examination: Examination, url: str, task_id: str) -> httpx.Response:
    body = to_body(sample_event("progress", task_id, datetime.now(UTC), percentage=0))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "flask-webhook-doctor",
        "X-Webhook-Event": "progress",
        "X-Task-ID": task_id,
    }
    return examination.client.post(url, content=body, headers=headers)


def _try_wrong_token(examination: Examination, url: str, task_id: str, shown: str) -> Finding:
    """Where unsigned callbacks are allowed, a lost query string only shows by a wrong token that is not noticed."""
    try:
        answer = _post(examination, _with_wrong_token(url), task_id)
    except httpx.HTTPError as error:
        return Finding(_NAME, Level.WARN, f"{shown} it arrived; a second one did not: {connection_words(error)}")
    if _code(answer) == "task_not_found":
        return Finding(
            _NAME,
            Level.FAIL,
            f"{shown} it arrived, but a wrong token was not noticed: a reverse proxy strips the query string, or the "
            "running app has no secret.",
            _STRIPPED + " And set WEBHOOK_REQUIRE_SIGNATURE=true.",
        )
    return Finding(_NAME, Level.OK, f"{shown} it arrived; its token was believed, and a wrong one refused.")


def _with_wrong_token(url: str) -> str:
    parts = urlsplit(url)
    query = [(name, "A" * 43 if name == "token" else value) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _judge(answer: httpx.Response, shown: str, *, has_token: bool) -> Finding | None:
    """What an answer means; None for the right one."""
    code = _code(answer)
    if code == "task_not_found":
        return None
    if code == "signature_missing" and not has_token:
        words = "it was refused (403), since there is no secret here to sign it with."
        return Finding(_NAME, Level.FAIL, f"{shown} {words}", "Set WEBHOOK_SECRET_KEY to that of the running app.")
    level, message, remedy = _OURS[code] if code in _OURS else (Level.FAIL, *_stranger(answer))
    return Finding(_NAME, level, f"{shown} {message}", remedy)


def _stranger(answer: httpx.Response) -> tuple[str, str]:
    """What it means, and what to do, where it was not this extension that answered."""
    status, said = answer.status_code, _words(answer)
    if 300 <= status < 400:  # noqa: PLR2004
        to = without_secrets(answer.headers.get("Location", "nowhere"))
        return (
            (
                f"it was answered with a redirect ({status}) to {to}: the creator follows it with GET, and the payload "
                "is lost."
            ),
            "Set WEBHOOK_CALLBACK_BASE_URL to the final address (https, the right host), so that nothing redirects.",
        )
    if answer.is_success:
        return (
            (
                f"something else answered {status} ({said}): the creator would take its callbacks for delivered, and "
                "they would be lost."
            ),
            _NOT_US,
        )
    if status in {401, 407}:
        return (
            f"something in front of the app asks for a login ({status}, {said}).",
            "Let requests below the callback path pass without one; their signature is checked by the app.",
        )
    if status in {502, 503, 504}:
        return (
            f"the reverse proxy answered {status} ({said}): the app behind it is down or does not answer.",
            "Start the app, and check where the reverse proxy looks for it.",
        )
    return f"the answer ({status}, {said}) is not this app's.", _NOT_US


def _code(answer: httpx.Response) -> str | None:
    """The code of our own error answers."""
    try:
        error = answer.json().get("error")
        return str(error["code"]) if isinstance(error, dict) else None
    except (ValueError, AttributeError, KeyError, RecursionError):
        return None


def _words(answer: httpx.Response) -> str:
    """What kind of answer it is, in a few words."""
    kind = answer.headers.get("Content-Type", "no content type").partition(";")[0]
    if kind == "text/html" and (title := _TITLE.search(answer.text[:10_000])):
        return f"an HTML page: {title[1].strip()}"
    return "an HTML page" if kind == "text/html" else kind
