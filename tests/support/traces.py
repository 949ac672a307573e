"""The spans that a host has ended, and how people read them: as trees, one for each trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from flask_contenthub_webhook.contrib.opentelemetry import WebhookTracing

PREFIX = "contenthub_webhook."


class Spans:
    """Spans in memory, as the exporter saw them."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def trace(self, app: Flask) -> None:
        """Switch the extension's tracing on."""
        WebhookTracing(app, tracer_provider=self.provider)

    def all(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def trees(self) -> str:
        """Every trace as a tree of names; a span says what it links to."""
        spans = self.all()
        names = {span_id(span): span.name for span in spans}
        roots = [span for span in spans if parent_id(span) not in names]
        numbers = {trace_id: number for number, trace_id in enumerate(dict.fromkeys(map(trace_id_of, spans)), 1)}
        lines: list[str] = []
        for trace_id, number in numbers.items():
            lines.append(f"trace {number}")
            for root in (root for root in roots if trace_id_of(root) == trace_id):
                lines += _tree(root, spans, names, numbers)
        return "\n".join(lines) + "\n"


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else int(span.parent.span_id)


def trace_id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def links_of(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def facts_of(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of ours."""
    found = dict(span.attributes or {})
    return {key.removeprefix(PREFIX): value for key, value in found.items() if key.startswith(PREFIX)}


def traceparent_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def _tree(
    span: ReadableSpan, spans: Sequence[ReadableSpan], names: Mapping[int, str], numbers: Mapping[int, int]
) -> list[str]:
    links = [link.context for link in span.links if link.context.trace_id != trace_id_of(span)]
    named = ", ".join(f"{names[to.span_id]!r} of trace {numbers[to.trace_id]}" for to in links)
    lines = [span.name + (f"   linked to {named}" if named else "")]
    children = [child for child in spans if parent_id(child) == span_id(span)]
    for child in children:
        is_last = child is children[-1]
        first, *rest = _tree(child, spans, names, numbers)
        lines.append(("└─ " if is_last else "├─ ") + first)
        lines += [("   " if is_last else "│  ") + line for line in rest]
    return lines
