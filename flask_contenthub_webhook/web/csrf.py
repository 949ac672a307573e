"""Senders of callbacks have no CSRF token; signatures protect these routes, so Flask-WTF must let them pass."""

from __future__ import annotations

from flask import Blueprint, Flask

__all__ = ["exempt_from_csrf"]


def exempt_from_csrf(app: Flask, blueprint: Blueprint) -> None:
    """Exempt a blueprint from Flask-WTF's ``CSRFProtect``, whichever of the two is registered first."""

    def exempt() -> None:
        csrf = app.extensions.get("csrf")
        if csrf is not None and hasattr(csrf, "exempt"):
            csrf.exempt(blueprint)

    exempt()
    # If CSRFProtect is registered later, its check is a before_request function after this one.
    app.before_request_funcs.setdefault(None, []).insert(0, exempt)
