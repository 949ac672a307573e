"""Routes that answer under every host name, in applications that route by host or subdomain as well.

A sender, a load balancer and a check may each use another name. What a host has of its own per name stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint
from flask.sansio.blueprints import BlueprintSetupState

__all__ = ["add_route", "drop_host_name"]

_HOST = "contenthub_webhook_host"
"""The variable part of a rule for the name; no view sees it."""


def add_route(blueprint: Blueprint, method: str, rule: str, view: Callable[..., Any]) -> None:
    """Add a view to a blueprint, for every host name; with or without a slash at the end."""

    def register(state: BlueprintSetupState) -> None:
        add = partial(state.add_url_rule, rule, view.__name__, view, methods=[method])
        options = {"strict_slashes": False, "merge_slashes": False}
        if state.app.url_map.host_matching:
            add(host=f"<{_HOST}>", **options)
            return
        add(**options)
        if state.app.subdomain_matching:
            add(subdomain=f"<{_HOST}>", **options)

    blueprint.record(register)


def drop_host_name(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Take the name out of a view's arguments: a ``url_value_preprocessor``."""
    if values is not None:
        values.pop(_HOST, None)
