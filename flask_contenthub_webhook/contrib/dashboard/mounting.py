"""The blueprint of the pages, with access control and the headers that protect browsers."""

from __future__ import annotations

from flask import Blueprint, Response, request

from .access import Permission, check_permission
from .forms import set_visitor_cookie
from .views import add_views

__all__ = ["create_dashboard"]

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would not name the origin of a form either
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_dashboard(*, permission: Permission | None = None, name: str = "contenthub_dashboard") -> Blueprint:
    """Make the history pages, as a blueprint that the host registers at any prefix.

    ::

        app.register_blueprint(create_dashboard(permission=lambda: current_user.is_admin), url_prefix="/webhooks")

    Args:
        permission: called for every request, in its context; True accepts it, anything else is 403. Without it the
            pages answer 403 outside debug mode.
        name: of the blueprint.
    """
    blueprint = Blueprint(name, __name__, static_folder="static", static_url_path="/assets")
    blueprint.before_request(lambda: check_permission(permission))
    blueprint.after_request(_protect)
    add_views(blueprint)
    return blueprint


def _protect(response: Response) -> Response:
    """Set the headers for pages that show untrusted data and load nothing from other sites."""
    set_visitor_cookie(response)
    for header, value in _HEADERS.items():
        response.headers[header] = value
    is_asset = request.endpoint is not None and request.endpoint.endswith(".static") and response.status_code < 400  # noqa: PLR2004
    response.headers["Cache-Control"] = "private, max-age=3600" if is_asset else "no-store"
    return response
