"""Work of ours that comes along with every request of the host, and must never cost the host a page."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Flask

from ..core.per_process import PerProcess

__all__ = ["before_each_request", "before_first_request"]

logger = logging.getLogger(__name__)


def before_each_request(app: Flask, work: Callable[[], None], *, what: str, at_front: bool = False) -> None:
    """Do some work before each request to an application; if it fails, log it, serve, and leave it at that.

    Args:
        app: the application.
        work: called within the request.
        what: the trouble in words, for the log.
        at_front: call it before what is registered already.
    """
    has_failed = PerProcess(list[bool])

    def run() -> None:
        if has_failed.value:
            return
        try:
            work()
        except Exception:
            has_failed.value.append(True)
            logger.exception("%s; the app is served without it.", what)

    functions = app.before_request_funcs.setdefault(None, [])
    functions.insert(0 if at_front else len(functions), run)


def before_first_request(app: Flask, work: Callable[[], None], *, what: str) -> None:
    """Do some work, in the same way, before anything else in the first request, when the application is set up.

    Threads that serve other requests meanwhile may do it once more.
    """

    def once() -> None:
        work()
        functions = app.before_request_funcs[None]
        app.before_request_funcs[None] = [function for function in functions if function is not run]

    before_each_request(app, once, what=what, at_front=True)
    run = app.before_request_funcs[None][0]
