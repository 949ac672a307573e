"""The page of failures, and their acknowledgement."""

from __future__ import annotations

import re

from flask import Response, redirect, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as AnyResponse

from ...runtime.state import get_state
from ...storage.failure_groups import acknowledge
from ...storage.queries import reading
from .access import person
from .failures import read_failures
from .forms import check_form
from .rendering import page

__all__ = ["acknowledge_failure", "failures"]

_DIGEST = re.compile(r"[0-9a-f]{40}")


def failures() -> Response:
    """Show what the handlers fail at now, by handler and exception."""
    state = get_state()
    with reading(state.database) as read:
        found = read_failures(read, state)
    return page("failures.html", failures=found)


def acknowledge_failure() -> AnyResponse:
    """Acknowledge a group of failures."""
    check_form()
    failure = request.form.get("failure", "")
    if not _DIGEST.fullmatch(failure):
        raise BadRequest("The form names no failure.")
    state = get_state()
    acknowledge(state.database, state.models.alert, failure, by=person())
    return redirect(url_for(".failures"), 303)
