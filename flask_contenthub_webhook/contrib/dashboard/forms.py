"""Protection of the forms: only our own pages, opened in the same browser, may post to us.

The token is our own, so that it works in every host: signed with the application's key, and bound to a random cookie.
If the host uses Flask-WTF's ``CSRFProtect``, its token is included, since it checks these forms as well.
"""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import urlsplit

from flask import Response, current_app, g, request
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from werkzeug.exceptions import BadRequest, Forbidden

__all__ = [
    "check_form",
    "has_secret_key",
    "hidden_fields",
    "problem_said",
    "read_signed",
    "set_visitor_cookie",
    "signed",
]

TOKEN_FIELD = "dashboard_token"  # noqa: S105 - the name of a form field
_COOKIE = "contenthub_dashboard"
_SECURE_COOKIE = f"__Host-{_COOKIE}"
"""Browsers accept such a cookie from this host alone, so another subdomain cannot set it."""
_VISITOR = re.compile(r"[A-Za-z0-9_-]{43}")
_SALT = "contenthub-webhook-dashboard"
_MAX_AGE = 12 * 3600
_G_KEY = "contenthub_dashboard_visitor"


def has_secret_key() -> bool:
    """Return True if the application has a key to sign with; without one nothing can be replayed."""
    return bool(current_app.secret_key)


def hidden_fields() -> dict[str, str]:
    """Return the hidden fields of every form."""
    fields = {TOKEN_FIELD: signed("form", None)}
    make_token = current_app.jinja_env.globals.get("csrf_token")
    if "csrf" in current_app.extensions and callable(make_token):
        fields[current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")] = make_token()
    return fields


def check_form() -> None:
    """Check that a POST comes from one of our forms.

    Raises:
        Forbidden: another site sent it, or it has no valid token.
    """
    if not has_secret_key():
        raise Forbidden("Nothing can be changed from here: the application has no SECRET_KEY.")
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise Forbidden("This form was sent from another site.")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Forbidden("This form was sent from another site.")
    if _known_visitor() is None:
        raise Forbidden("The form came without this site's cookie. Open the page again.")
    try:
        _read(request.form.get(TOKEN_FIELD, ""), "form")
    except SignatureExpired:
        raise Forbidden("The page is too old. Open it again.") from None
    except BadSignature:
        raise Forbidden("The form came without its token. Open the page again.") from None


def signed(purpose: str, value: Any) -> str:
    """Sign a value for a hidden field, so that only this browser can send it back, unchanged."""
    return str(_serializer(purpose).dumps([_visitor(), value]))


def read_signed(purpose: str, text: str) -> Any:
    """Return the value of :func:`signed`.

    Raises:
        BadRequest: it is not ours, was changed, or is too old.
    """
    try:
        return _read(text, purpose)
    except BadSignature:
        raise BadRequest("This replay was not started on this page, or it is too old. Count again.") from None


def problem_said() -> str:
    """Return what went wrong before the redirect to this page; an empty text if nothing did, or others say so."""
    try:
        return str(_read(request.args["problem"], "problem")) if has_secret_key() else ""
    except (KeyError, BadSignature):
        return ""


def set_visitor_cookie(response: Response) -> None:
    """Set the cookie that belongs to the form in this response."""
    visitor = g.get(_G_KEY)
    if visitor is not None and visitor != _known_visitor():
        name = _SECURE_COOKIE if request.is_secure else _COOKIE
        response.set_cookie(name, visitor, httponly=True, samesite="Lax", secure=request.is_secure, path="/")


def _visitor() -> str:
    """Return the random name of this browser, which the cookie keeps."""
    if _G_KEY not in g:
        setattr(g, _G_KEY, _known_visitor() or secrets.token_urlsafe(32))
    return str(getattr(g, _G_KEY))


def _known_visitor() -> str | None:
    visitor = request.cookies.get(_SECURE_COOKIE if request.is_secure else _COOKIE, "")
    return visitor if _VISITOR.fullmatch(visitor) else None


def _read(text: str, purpose: str) -> Any:
    visitor, value = _serializer(purpose).loads(text, max_age=_MAX_AGE)
    if visitor != _visitor():
        raise BadSignature("It was made for another browser.")
    return value


def _serializer(purpose: str) -> URLSafeTimedSerializer:
    """Sign with the current key, and accept Flask's fallback keys."""
    older = current_app.config.get("SECRET_KEY_FALLBACKS") or []
    return URLSafeTimedSerializer([*older, current_app.secret_key], salt=f"{_SALT}-{purpose}")
