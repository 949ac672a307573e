"""Checks of the host's that would refuse every sender: Flask-WTF's CSRF tokens, Flask-Limiter's default limits.

Senders have no token, and many of their callbacks come from one address. Signatures protect these routes, and
WEBHOOK_RATE_LIMIT limits them, with answers that a sender understands and the history shows.
"""

from __future__ import annotations

from flask import Blueprint, Flask

from ..runtime.host_requests import before_first_request

__all__ = ["exempt_from_host_checks"]


def exempt_from_host_checks(app: Flask, blueprint: Blueprint) -> None:
    """Exempt a blueprint from ``CSRFProtect`` and every ``Limiter``, whichever is registered first."""

    def exempt() -> None:
        for extension in (app.extensions.get("csrf"), *app.extensions.get("limiter", ())):
            if hasattr(extension, "exempt"):
                extension.exempt(blueprint)

    # The checks are before_request functions as well, and come after this one.
    what = "The callback routes could not be exempted from the host's CSRF and rate checks"
    before_first_request(app, exempt, what=what)
