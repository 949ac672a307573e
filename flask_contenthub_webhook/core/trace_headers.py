"""The headers that carry a trace to another service, W3C's ``traceparent`` and ``tracestate``; none unless traced."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

__all__ = ["TRACE_HEADERS", "current_traceparent"]

TRACE_HEADERS: ContextVar[Mapping[str, str]] = ContextVar(
    "contenthub_webhook_trace_headers", default=MappingProxyType({})
)
"""Of the current span, as requests to other services send them."""


def current_traceparent() -> str | None:
    """Return what names the current span in a row or a header; None if there is none."""
    return TRACE_HEADERS.get().get("traceparent")
