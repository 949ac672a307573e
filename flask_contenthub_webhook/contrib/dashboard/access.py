"""Access to the pages: the host's own callable decides; without one they are closed outside debug mode."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import current_app, g, request
from werkzeug.exceptions import Forbidden

__all__ = ["NotPermitted", "Permission", "Who", "check_permission", "person", "remember"]

logger = logging.getLogger(__name__)

Permission = Callable[[], bool]
Who = Callable[[], str | None]
_G_KEY = "contenthub_dashboard_who"

_UNSET = (
    "The history pages answer 403: no permission is set. "
    "Set create_dashboard(permission=...) to a function that returns True for those who may."
)


class NotPermitted(Forbidden):
    """This request may not see any of the pages."""


def check_permission(permission: Permission | None) -> None:
    """Accept or refuse the request.

    Only True accepts it. A callable that returns another truthy value, such as the redirect of a login page or a
    coroutine, was not written for this.

    Args:
        permission: of the host; called in the context of the request. Without one the pages are open in debug mode
            only.

    Raises:
        NotPermitted: the request is refused.
    """
    if permission is None:
        if current_app.debug:
            return
        logger.error(_UNSET)
        raise NotPermitted("No permission is set for these pages. The log says what to do.")
    answer: Any = current_app.ensure_sync(permission)()
    if answer is True:
        return
    if answer:
        logger.error(
            "The history pages answer 403: their permission returned %s; it must return True or False.",
            type(answer).__name__,
        )
    raise NotPermitted("You may not see these pages.")


def remember(who: Who | None) -> None:
    """Remember for this request how to learn who makes it."""
    setattr(g, _G_KEY, who)


def person() -> str:
    """Return who makes this request, for the history: by the host, by the server's authentication, or by address."""
    who: Who | None = g.get(_G_KEY)
    name: Any = None if who is None else current_app.ensure_sync(who)()
    name = name or request.remote_user  # known to the server, which anybody's header is not
    if not name and request.authorization is not None:
        name = request.authorization.username
    return str(name or f"somebody at {request.remote_addr}")
