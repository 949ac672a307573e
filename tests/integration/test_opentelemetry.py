"""Where a host instruments Flask and SQLAlchemy, spans nest as people expect; nothing of ours is needed for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from flask import Flask, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from flask_contenthub_webhook import delivery_processed
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.operations.scheduler import start_scheduler, stop_scheduler
from tests.support.host import Host, completed

STATEMENTS = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}


class Traced:
    """A host under instrumentation, and the spans that it has ended."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._ended = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._ended))

    def instrument(self, **options: Any) -> None:
        FlaskInstrumentor().instrument_app(self.host.app, tracer_provider=self.provider, **options)
        # The instrumentation does not say yet that it knows SQLAlchemy 2.1; it does.
        SQLAlchemyInstrumentor().instrument(engine=self.host.engine, tracer_provider=self.provider, skip_dep_check=True)
        self._ended.clear()

    def uninstrument(self) -> None:
        FlaskInstrumentor.uninstrument_app(self.host.app)
        SQLAlchemyInstrumentor().uninstrument()

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._ended.get_finished_spans()

    @property
    def statements(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.partition(" ")[0] in STATEMENTS]

    @property
    def request(self) -> ReadableSpan:
        """The span of the only request."""
        (span,) = (span for span in self.spans if span.kind is SpanKind.SERVER)
        return span

    def forget(self) -> None:
        self._ended.clear()


def set_up(app: Flask) -> None:
    WebhookMetrics(app, path="/metrics")

    @app.get("/start")
    def start() -> str:
        start_scheduler(app)
        return "started"


def parents(spans: list[ReadableSpan]) -> set[int | None]:
    return {None if span.parent is None else span.parent.span_id for span in spans}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


@pytest.fixture
def traced(hosts: Callable[..., Host], database_url: str) -> Iterator[Traced]:
    host = hosts(database_url, after=set_up, WEBHOOK_SUBMIT_THREADS=0)
    traced = Traced(host)
    with host.app.app_context():
        host.db.session.execute(sqlalchemy.text("SELECT 1"))  # what a first connection asks is nobody's business here
    before = sqlalchemy.create_engine
    traced.instrument()
    yield traced
    traced.uninstrument()
    traced.forget()
    host.post(host.add_task(), b"{}")
    assert traced.spans == ()
    assert sqlalchemy.create_engine is before, "the instrumentation would follow the other tests"


def test_the_statements_of_a_callback_and_of_its_handlers_are_children_of_its_request(traced: Traced):
    task_id = traced.host.add_task()
    traced.forget()

    traced.host.post(task_id, completed(task_id))

    assert any("INTO contents" in str(span.attributes) for span in traced.statements)
    assert parents(traced.statements) == {id_of(traced.request)}


def test_a_callback_goes_on_with_the_trace_of_its_sender(traced: Traced):
    task_id, trace_id, span_id = traced.host.add_task(), 0xC0FFEE, 0xBEEF
    traced.forget()

    traced.host.post(task_id, completed(task_id), headers={"traceparent": f"00-{trace_id:032x}-{span_id:016x}-01"})

    assert parents([traced.request]) == {span_id}
    assert {span.context.trace_id for span in traced.spans if span.context} == {trace_id}


def test_jobs_of_a_scheduler_that_a_request_started_do_not_hang_on_that_request(traced: Traced):
    host, task_id, settled = traced.host, traced.host.add_task(), threading.Event()
    host.publisher.broken = True
    host.post(task_id, completed(task_id))
    host.publisher.broken = False
    host.clock.advance(60)
    host.connect(delivery_processed, lambda *_, **__: settled.set())
    traced.forget()

    try:
        host.app.test_client().get("/start")
        assert settled.wait(20)
    finally:
        stop_scheduler(host.app)

    assert host.task(task_id).status == "completed"
    assert any("INTO contents" in str(span.attributes) for span in traced.statements)
    assert parents([span for span in traced.spans if span is not traced.request]) == {None}


def test_a_job_within_a_span_of_the_hosts_own_is_its_child(traced: Traced):
    with traced.provider.get_tracer("host").start_as_current_span("nightly") as nightly:
        traced.host.retry()

    assert traced.statements
    assert parents(traced.statements) == {nightly.get_span_context().span_id}


def test_the_statements_of_a_scrape_are_children_of_its_request_though_a_thread_runs_them(traced: Traced):
    traced.host.app.test_client().get("/metrics")

    assert len(traced.statements) >= 6  # and what a database is asked for once
    assert parents(traced.statements) == {id_of(traced.request)}


def test_the_hook_of_the_documentation_keeps_tokens_out_of_spans(traced: Traced):
    traced.uninstrument()
    traced.instrument(response_hook=hide_query)
    task_id = traced.host.add_task()

    traced.host.post(task_id, completed(task_id))

    assert "token=" in traced.host.path(task_id)
    assert traced.request.attributes is not None
    assert traced.request.attributes["http.target"] == traced.host.path(task_id).partition("?")[0]
    assert "token=" not in str([span.attributes for span in traced.spans])


def hide_query(span: Any, _status: str, _headers: list[tuple[str, str]]) -> None:
    span.set_attributes({"http.target": request.path, "url.query": ""})
