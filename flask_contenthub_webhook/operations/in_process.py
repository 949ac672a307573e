"""The scheduler of a serving process (WEBHOOK_SCHEDULER_ENABLED): it starts with the first request.

A process serves if its requests come from a server. Most servers give their name; an adapter from ASGI does not, so
what is neither a test nor a command counts as well. Where that is not clear, a line in the log says that none starts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import click
from flask import Flask, request
from flask.cli import ScriptInfo

from ..runtime.host_requests import before_each_request
from ..runtime.state import get_state
from .scheduler import start_scheduler

__all__ = ["start_scheduler_with_first_request"]

logger = logging.getLogger(__name__)

_SERVER_MARKS = frozenset({"SERVER_SOFTWARE", "uwsgi.version", "mod_wsgi.version"})
"""Keys that servers put into the environment of a request, and a test client does not."""


def start_scheduler_with_first_request(app: Flask) -> None:
    """Start the scheduler with the first request from a server, in each forked worker.

    CLI commands, test clients and the parent of the reloader never get one, so they do not run the jobs.
    """

    def start_once() -> None:
        jobs = get_state(app).jobs.value
        if jobs.was_started or app.testing:
            return
        if _has_server_mark(request.environ) or (_may_be_a_servers(request.environ) and not _is_command()):
            start_scheduler(app)
        elif not jobs.was_doubted and not _is_command():
            jobs.was_doubted = True
            logger.warning(
                "WEBHOOK_SCHEDULER_ENABLED is set, but the first request does not look like a server's, so the "
                "scheduler does not start in this process. If this process serves, call webhook.start_scheduler(app), "
                "or run `flask webhook scheduler`."
            )

    before_each_request(app, start_once, what="The scheduler could not be started in this process")


def _has_server_mark(environ: Mapping[str, Any]) -> bool:
    return not _SERVER_MARKS.isdisjoint(environ)


def _may_be_a_servers(environ: Mapping[str, Any]) -> bool:
    """Tell whether several threads or processes serve: adapters from ASGI say so, Werkzeug's test client does not."""
    is_concurrent = environ.get("wsgi.multithread") or environ.get("wsgi.multiprocess")
    return bool(is_concurrent) and "pytest" not in sys.modules


def _is_command() -> bool:
    """Tell whether a command of Flask's made the request, through a client of the application."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_object(ScriptInfo) is not None
