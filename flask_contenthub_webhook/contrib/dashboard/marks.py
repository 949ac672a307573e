"""Several lines of a stranger's text as HTML."""

from __future__ import annotations

from markupsafe import Markup, escape

from ...core.redaction import HIDDEN, visible

__all__ = ["marked"]


def marked(text: str) -> Markup:
    """Return several lines as HTML, with the signs of :func:`.visible` set apart from such signs in the text itself."""
    return Markup(HIDDEN.sub(lambda found: f"<mark>{visible(found[0])}</mark>", escape(text)))  # noqa: S704
