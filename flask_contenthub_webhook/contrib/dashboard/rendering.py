"""Templates, in an environment of their own: whatever they show is made visible and escaped, without being asked to.

The host's own Jinja environment may escape or not, and may have other templates under our names.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from flask import Response, url_for
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..._version import __version__
from ...runtime.state import get_state
from .forms import has_secret_key, hidden_fields
from .visible import marked, visible

__all__ = ["fragment", "page"]


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """A whole page.

    Args:
        template: its file.
        status: of the answer.
        **values: what the template shows.
    """
    return Response(fragment(template, **values), status=status, mimetype="text/html")


def fragment(template: str, **values: Any) -> str:
    """A template, filled in."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        exact=_exact,
        lines=marked,
        moment=_moment,
        minute=_minute,
        duration=_duration,
        number=_number,
        percent=_percent,
        ms=_ms,
    )
    environment.globals.update(
        url=_url,
        version=__version__,
        has_secret_key=has_secret_key,
        hidden_fields=hidden_fields,
        now=lambda: get_state().clock(),
    )
    return environment


def _finalized(value: Any) -> Any:
    """What every expression of every template goes through, before it is escaped."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def _url(endpoint: str, **values: Any) -> str:
    """The address of a page of ours, wherever the host has mounted it."""
    return url_for(f".{endpoint}", **values)


# --- filters -------------------------------------------------------------------------------------------------


def _exact(text: str) -> Markup:
    """For the value of a form field, which must come back as it is; only for what came in the query of a request."""
    return escape(text)


def _moment(at: datetime | None) -> Markup:
    """A time to the second, in UTC."""
    return Markup("") if at is None else _time(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}")


def _minute(at: datetime) -> Markup:
    return _time(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M}")


def _time(at: datetime, words: str) -> Markup:
    exactly = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(exactly, words)


def _duration(length: timedelta) -> str:
    """A length of time in its two largest units."""
    seconds = abs(length.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    parts: list[str] = []
    left = round(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(share: float | None) -> str:
    """A share; never rounded up to all."""
    if share is None:
        return "-"
    return "100 %" if share == 1 else f"{int(share * 10_000) / 100:g} %"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"  # noqa: PLR2004
