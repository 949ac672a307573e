"""Who may see the pages: whoever the host's own callable says, and nobody where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import current_app
from werkzeug.exceptions import Forbidden

__all__ = ["NotPermitted", "Permission", "check_permission"]

logger = logging.getLogger(__name__)

Permission = Callable[[], bool]

_UNSET = (
    "The history pages answer 403: nobody said who may see them. "
    "Set create_dashboard(permission=...) to a function that returns True for those who may."
)


class NotPermitted(Forbidden):
    """This request may not see any of the pages."""


def check_permission(permission: Permission | None) -> None:
    """Let the request pass, or refuse it.

    Only True lets it pass. A callable that answers with something else that Python takes for true, such as the redirect
    of a login page or a coroutine, was not written for this.

    Args:
        permission: of the host; called in the context of the request. Without one the pages are open in debug mode
            alone.

    Raises:
        NotPermitted: this request may not.
    """
    if permission is None:
        if current_app.debug:
            return
        logger.error(_UNSET)
        raise NotPermitted("Nobody said who may see these pages. The log says what to set.")
    answer: Any = current_app.ensure_sync(permission)()
    if answer is True:
        return
    if answer:
        logger.error(
            "The history pages answer 403: their permission returned %s; it must return True or False.",
            type(answer).__name__,
        )
    raise NotPermitted("You may not see these pages.")
