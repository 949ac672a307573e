"""How Sphinx builds the documentation. Nothing here needs the network."""

import builtins
import sys
from typing import Any

from sphinx.application import Sphinx

from flask_contenthub_webhook._version import __version__

project = "flask-contenthub-webhook"
author = "the flask_contenthub_webhook authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

nitpicky = True
_OTHERS = (
    "blinker",
    "celery",
    "flask",
    "flask_sqlalchemy",
    "httpx",
    "prometheus_client",
    "pytest",
    "sqlalchemy",
    "werkzeug",
)
_ROOTS = "|".join((*_OTHERS, *sys.stdlib_module_names, *dir(builtins)))
nitpick_ignore_regex = [
    ("py:.*", rf"({_ROOTS})(\..*)?"),  # what others document is theirs to find
    ("py:.*", r".*\b[FPT]"),  # type variables
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"{project} {release}"

_as_written: dict[str, list[str]] = {}


def remember(_app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in the first line of a variable's docstring for the variable's type."""
    if what in {"data", "attribute", "property"}:
        _as_written[name] = lines.copy()


def put_back(_app: Sphinx, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Undo what Napoleon did to a variable's docstring; none of ours has sections."""
    lines[:] = _as_written.pop(name, lines)
    if name.startswith("flask_contenthub_webhook.ContentHubWebhook."):  # a method gets the state from the application
        lines[:] = [line for line in lines if not line.startswith((":param state:", ":type state:"))]


def setup(app: Sphinx) -> None:
    """Called by Sphinx; Napoleon runs at 500, between the two."""
    app.connect("autodoc-process-docstring", remember, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
