"""What the extension asks of a tracer. There is none unless the host sets up :mod:`..contrib.opentelemetry`.

A row that waits for another process keeps the ``traceparent`` of the span that wrote it, so that the work goes on in
the same trace, minutes later and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

__all__ = ["Kind", "Tracing", "note", "traced", "traced_call"]

Kind = Literal["internal", "client", "producer", "consumer"]


class Tracing(Protocol):
    """Opens spans, as the host's tracer does."""

    def span(
        self, name: str, kind: Kind, *, origin: str | None, nested: bool, facts: Mapping[str, Any]
    ) -> AbstractContextManager[None]:
        """Open a span, whose headers are in ``TRACE_HEADERS``; an exception marks it as failed.

        Args:
            name: its name, one of few.
            kind: its role.
            origin: the ``traceparent`` of the span that caused it.
            nested: make it a child of the current span, if there is one, and link to the origin; otherwise the other
                way round.
            facts: its attributes.
        """

    def link(self, traceparent: str | None) -> None:
        """Link the current span to another one."""

    def note(self, facts: Mapping[str, Any], *, error: str | None = None) -> None:
        """Add attributes to the current span; ``error`` marks it as failed."""

    def exemplar(self) -> dict[str, str] | None:
        """Return the ids of the current span for a metric; None if it is not sampled."""


def traced(
    tracing: Tracing | None, name: str, kind: Kind, *, origin: str | None = None, nested: bool = False, **facts: Any
) -> AbstractContextManager[None]:
    """Open a span, if there is a tracer; see :meth:`Tracing.span`."""
    if tracing is None:
        return nullcontext()
    return tracing.span(name, kind, origin=origin, nested=nested, facts=facts)


def traced_call(tracing: Tracing, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs in a span of its own."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with tracing.span(name, "internal", origin=None, nested=True, facts={}):
            return function(*args, **kwargs)

    return run


def note(tracing: Tracing | None, *, error: str | None = None, **facts: Any) -> None:
    """Add attributes to the current span, if there is a tracer."""
    if tracing is not None:
        tracing.note(facts, error=error)
