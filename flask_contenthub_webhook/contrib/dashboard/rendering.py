"""Templates, in a separate Jinja environment that escapes every value and makes invisible characters visible.

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
from ...core.redaction import redacted_text, visible
from ...core.signatures import SCHEMES
from ...runtime.state import get_state
from .banners import Banners, read_banners
from .forms import has_secret_key, hidden_fields
from .marks import marked

__all__ = ["fragment", "page"]

_OUR_TROUBLE = 500
_SIGNATURES = {name: escape(scheme.reads.replace("`", "")) for name, scheme in SCHEMES.items()}
"""Where a scheme has its signature."""

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a whole page.

    Args:
        template: its file.
        status: of the response.
        **values: for the template.
    """
    banners = Banners() if values.get("bare") or status >= _OUR_TROUBLE else read_banners(get_state())
    return Response(fragment(template, banners=banners, **values), status=status, mimetype="text/html")


def fragment(template: str, **values: Any) -> str:
    """Render a template."""
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
        exact=escape,  # unchanged, for form fields; only for values from the query of the request
        lines=marked,
        moment=_moment,
        since=_since,
        ago=_ago,
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
        signatures=_SIGNATURES,
        hidden_fields=hidden_fields,
        now=lambda: get_state().now(),
        own_time=lambda: get_state().clock(),  # also while the database is away
    )
    return environment


def _finalized(value: Any) -> Any:
    """Prepare the value of any expression in a template, before it is escaped."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(redacted_text(value))
    return value


def _url(endpoint: str, **values: Any) -> str:
    """Return the URL of one of our pages."""
    return url_for(f".{endpoint}", **values)


# --- filters -------------------------------------------------------------------------------------------------


def _moment(at: datetime | None) -> Markup:
    """Return a time to the second, in UTC."""
    return Markup("") if at is None else _time(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}")


def _since(at: datetime | None) -> Markup:
    """Return a time, and how long ago or ahead it is."""
    return Markup("") if at is None else _moment(at) + Markup(" ") + _ago(at)


def _ago(at: datetime) -> Markup:
    """Return how long ago or ahead a time is; the script keeps it up to date."""
    seconds = (get_state().now() - at).total_seconds()
    size, unit = next(((size, unit) for unit, size in _UNITS if abs(seconds) >= size), (1, "s"))
    length = f"{int(abs(seconds)) // size} {unit}"
    words = "now" if abs(seconds) < 1 else f"{length} ago" if seconds > 0 else f"in {length}"
    return Markup('<span class="ago" data-at="{}">{}</span>').format(f"{at.timestamp():.3f}", words)


def _minute(at: datetime) -> Markup:
    return _time(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M}")


def _time(at: datetime, text: str) -> Markup:
    exactly = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(exactly, text)


def _duration(length: timedelta) -> str:
    """Return a duration in its two largest units."""
    seconds = abs(length.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    parts: list[str] = []
    left = round(seconds)
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(share: float | None) -> str:
    """Return a share in percent, never rounded up to 100 %."""
    if share is None:
        return "-"
    return "100 %" if share == 1 else f"{int(share * 10_000) / 100:g} %"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"  # noqa: PLR2004
