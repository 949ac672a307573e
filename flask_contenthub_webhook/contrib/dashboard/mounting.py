"""The blueprint of the pages, with access control and the headers that protect browsers."""

from __future__ import annotations

from flask import Blueprint, Response, request
from flask.sansio.blueprints import BlueprintSetupState

from ...errors import ConfigurationError
from .access import Permission, Who, check_permission, remember
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


def create_dashboard(
    *, permission: Permission | None = None, who: Who | None = None, name: str = "contenthub_dashboard"
) -> Blueprint:
    """Make the history pages, as a blueprint that the host registers at any prefix.

    ::

        app.register_blueprint(create_dashboard(permission=lambda: current_user.is_admin), url_prefix="/webhooks")

    Args:
        permission: called for every request, in its context; True accepts it, anything else is 403. Without it the
            pages answer 403 outside debug mode.
        who: returns the name of the person who makes a request; the history keeps it with what that person replays,
            resends and acknowledges. By default the user of HTTP authentication, or the client's address.
        name: of the blueprint.
    """
    blueprint = Blueprint(name, __name__, static_folder="static", static_url_path="/assets")
    blueprint.record_once(_refuse_host_matching)
    blueprint.before_request(lambda: check_permission(permission))
    blueprint.before_request(lambda: remember(who))
    blueprint.after_request(_protect)
    add_views(blueprint)
    return blueprint


def _refuse_host_matching(state: BlueprintSetupState) -> None:
    """Refuse to be mounted where no page would ever be found."""
    if state.app.url_map.host_matching:
        raise ConfigurationError(
            "The history pages cannot be mounted in an app with host_matching=True. Mount an app of their own beside "
            "it, with the same database, for example by werkzeug.middleware.dispatcher.DispatcherMiddleware."
        )


def _protect(response: Response) -> Response:
    """Set the headers for pages that show untrusted data and load nothing from other sites."""
    set_visitor_cookie(response)
    for header, value in _HEADERS.items():
        response.headers[header] = value
    is_asset = request.endpoint is not None and request.endpoint.endswith(".static") and response.status_code < 400  # noqa: PLR2004
    response.headers["Cache-Control"] = "private, max-age=3600" if is_asset else "no-store"
    return response
