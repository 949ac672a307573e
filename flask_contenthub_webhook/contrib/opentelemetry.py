"""Traces of tasks for OpenTelemetry: from ``submit`` to the forwards, also where minutes and processes lie between.

::

    tracing = WebhookTracing()

    webhook.init_app(app, db)
    tracing.init_app(app)

Needs the extra ``opentelemetry``, which is the API alone. The host brings the SDK, and says where spans go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Flask

try:
    from opentelemetry import context, trace
except ImportError as error:
    raise ImportError(
        "flask_contenthub_webhook.contrib.opentelemetry needs opentelemetry-api: "
        "pip install 'flask-contenthub-webhook[opentelemetry]'."
    ) from error
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .._version import __version__
from ..core.trace_headers import TRACE_HEADERS
from ..errors import RequestRefused
from ..runtime.state import get_state
from ..runtime.tracing import Kind

__all__ = ["WebhookTracing"]

logger = logging.getLogger(__name__)

_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_PREFIX = "contenthub_webhook."
_OURS = 500
"""The least HTTP status of a refusal that is a failure of this application, not of the sender."""
_W3C = TraceContextTextMapPropagator()


class WebhookTracing:
    """Trace what the extension does. One object can serve many applications.

    Args:
        app: set up for this application at once.
        **options: see :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        if app is not None:
            self.init_app(app, **options)

    def init_app(self, app: Flask, *, tracer_provider: TracerProvider | None = None) -> None:
        """Trace from now on. Call it after ``webhook.init_app``.

        Args:
            app: the application.
            tracer_provider: takes the spans; by default the process's own one, as of the first span.

        Raises:
            RuntimeError: ``webhook.init_app`` was not called, or this was called before.
        """
        state = get_state(app)
        if state.tracing is not None:
            raise RuntimeError(f"WebhookTracing is already set up for the app {app.name!r}.")
        state.tracing = _Tracing(tracer_provider)


class _Tracing:
    """The spans of one application; see :class:`~.runtime.tracing.Tracing`."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = trace.get_tracer("flask_contenthub_webhook", __version__, provider)

    @contextmanager
    def span(
        self, name: str, kind: Kind, *, origin: str | None, nested: bool, facts: Mapping[str, Any]
    ) -> Iterator[None]:
        current, cause = trace.get_current_span().get_span_context(), _read(origin)
        first, second = (current, cause) if nested else (cause, current)
        parent, linked = (first, second) if first.is_valid else (second, first)
        span: trace.Span = trace.NonRecordingSpan(parent)
        with _never_felt():
            span = self._tracer.start_span(
                name,
                context=trace.set_span_in_context(span),
                kind=_KINDS[kind],
                links=[Link(linked)] if linked.is_valid else [],
                attributes=_attributes(facts),
            )
        headers: dict[str, str] = {}
        inside = context.attach(trace.set_span_in_context(span))
        _W3C.inject(headers)
        token = TRACE_HEADERS.set(headers)
        try:
            yield
        except BaseException as error:
            self._note_error(error)  # without its words, which may hold secrets; the history and the log have them
            raise
        finally:
            TRACE_HEADERS.reset(token)
            context.detach(inside)
            with _never_felt():
                span.end()

    def link(self, traceparent: str | None) -> None:
        linked = _read(traceparent)
        if linked.is_valid:
            trace.get_current_span().add_link(linked)

    def note(self, facts: Mapping[str, Any], *, error: str | None = None) -> None:
        span = trace.get_current_span()
        span.set_attributes(_attributes(facts))
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))

    def exemplar(self) -> dict[str, str] | None:
        current = trace.get_current_span().get_span_context()
        if not current.trace_flags.sampled:
            return None
        return {"trace_id": trace.format_trace_id(current.trace_id), "span_id": trace.format_span_id(current.span_id)}

    def _note_error(self, error: BaseException) -> None:
        if not isinstance(error, RequestRefused):
            self.note({}, error=type(error).__name__)
        elif error.status >= _OURS:
            self.note({}, error=error.code)
        else:
            self.note({"refused": error.code})


@contextmanager
def _never_felt() -> Iterator[None]:
    """Log what a sampler or a processor of the host raises: the event is committed or not, and nobody repeats it."""
    try:
        yield
    except Exception:
        logger.exception("A sampler or a span processor failed; the work goes on without its span.")


def _read(traceparent: str | None) -> SpanContext:
    """Return the span that a ``traceparent`` names; an invalid one for none."""
    if not traceparent:
        return trace.INVALID_SPAN_CONTEXT
    return trace.get_current_span(_W3C.extract({"traceparent": traceparent}, Context())).get_span_context()


def _attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{_PREFIX}{key}": value for key, value in facts.items() if value is not None}
