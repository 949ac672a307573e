"""Traces of tasks: what the exporter saw of `submit`, the outbox, callbacks, polls, workers, handlers and forwards."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, StaticSampler
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags

from flask_contenthub_webhook.contrib.opentelemetry import WebhookTracing
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.creators import HttpCreator, RemoteState, Report
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.host import Host, completed, failed
from tests.support.receiver import Receiver
from tests.support.submission import cancel, own, reconcile, submit, sweep, with_own_creator
from tests.support.traces import Spans, facts_of, links_of, parent_id, span_id, trace_id_of, traceparent_of

Build = Callable[..., Host]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tracing.md"
PATH = "/api/v1/content/callback/<path:task_id>"
CONFIG: dict[str, Any] = {
    "WEBHOOK_CALLBACK_BASE_URL": "https://hub.example",
    "WEBHOOK_SUBMIT_THREADS": 0,
    "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
    "CREATOR_SUBMIT_WAIT": 0.05,
}


class Hub:
    """A host whose tasks are traced."""

    def __init__(self, build: Build, url: str, *, spans: Spans | None = None, **config: Any) -> None:
        self.spans = Spans() if spans is None else spans
        self.host = with_own_creator(build(url, after=self._set_up, **{**CONFIG, **config}))

    def _set_up(self, app: Flask) -> None:
        self.spans.trace(app)

        @app.post("/orders")
        def order() -> str:
            return str(app.extensions["order"]())

        FlaskInstrumentor().instrument_app(app, tracer_provider=self.spans.provider)

    def order(self, **values: Any) -> str:
        """Submit a task within a request, and hand it over in a sweep."""
        webhook = self.host.webhook
        self.host.app.extensions["order"] = lambda: webhook.submit(topic="Tea", **values).task_id
        task_id = self.host.app.test_client().post("/orders").text
        sweep(self.host)
        return task_id

    def complete(self, task_id: str, **options: Any) -> Any:
        return self.host.post(task_id, completed(self.host.task(task_id).creator_task_id), **options)

    def work(self) -> None:
        self.host.retry()

    def send(self) -> Any:
        with self.host.app.app_context():
            return self.host.webhook.send_due_forwards()


@pytest.fixture
def hub(hosts: Build, database_url: str) -> Iterator[Hub]:
    hub = Hub(hosts, database_url)
    yield hub
    FlaskInstrumentor.uninstrument_app(hub.host.app)


@pytest.fixture
def lite(hosts: Build, sqlite_url: str) -> Iterator[Hub]:
    hub = Hub(hosts, sqlite_url)
    yield hub
    FlaskInstrumentor.uninstrument_app(hub.host.app)


@pytest.fixture
def worker_hub(hosts: Build, database_url: str) -> Iterator[Hub]:
    hub = Hub(hosts, database_url, WEBHOOK_PROCESSING="worker")
    yield hub
    FlaskInstrumentor.uninstrument_app(hub.host.app)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


# --- whole traces --------------------------------------------------------------------------------------------


def test_a_task_settled_by_its_callback(hub: Hub, receiver: Receiver):
    task_id = hub.order(forward_to=[receiver.url()])
    hub.host.clock.advance(300)
    assert hub.complete(task_id).status_code == 200
    hub.send()

    assert hub.spans.trees() == BY_CALLBACK
    submitted = hub.spans.one("submit task")
    assert links_of(hub.spans.one("apply completed")) == [span_id(submitted)]
    assert {facts_of(span)["task_id"] for span in hub.spans.all() if "task_id" in facts_of(span)} == {task_id}


BY_CALLBACK = f"""\
trace 1
POST /orders
└─ submit task
   └─ hand over task
      └─ apply submitted
trace 2
POST {PATH}
└─ apply completed   linked to 'submit task' of trace 1
   ├─ handler Publisher
   └─ forward completed
"""


def test_a_task_settled_by_a_poll(hub: Hub, receiver: Receiver):
    host = hub.host
    with CreatorSimulator(clock=host.clock, restart_after=None, work_time=None) as simulator:
        host.state.creator = creator = HttpCreator(simulator.base_url, timeout=5, clock=host.clock)
        task_id = hub.order(requirements="R", target_audience="A", forward_to=[receiver.url()])
        (job,) = simulator.tasks
        simulator.add_task(job, state="completed", result={"content": "polled"})
        host.clock.advance(300)
        assert reconcile(host).applied == {"processed": 1}
        creator.close()
    hub.send()

    assert hub.spans.trees() == BY_POLL
    assert host.task(task_id).status == "completed"
    assert links_of(hub.spans.one("apply completed")) == [span_id(hub.spans.one("submit task"))]
    assert facts_of(hub.spans.one("apply completed"))["source"] == "poll"


BY_POLL = """\
trace 1
POST /orders
└─ submit task
   ├─ hand over task
   │  └─ apply submitted
   └─ poll task
      └─ apply completed
         ├─ handler Publisher
         └─ forward completed
"""


def test_an_event_that_a_worker_applies_goes_on_in_the_trace_of_its_request(worker_hub: Hub, receiver: Receiver):
    task_id = worker_hub.order(forward_to=[receiver.url()])
    assert worker_hub.complete(task_id).status_code == 202
    worker_hub.work()
    worker_hub.send()

    assert (
        worker_hub.spans.trees()
        == f"""\
trace 1
POST /orders
└─ submit task
   └─ hand over task
      └─ apply submitted
trace 2
POST {PATH}
└─ accept completed
   └─ apply completed   linked to 'submit task' of trace 1
      ├─ handler Publisher
      └─ forward completed
"""
    )


def test_the_page_shows_these_traces():
    shown = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown == [BY_CALLBACK, BY_POLL]


# --- what is sent on -----------------------------------------------------------------------------------------


def test_the_service_is_sent_the_span_of_the_hand_over(hub: Hub):
    with Receiver(202) as service:
        hub.host.state.creator = creator = HttpCreator(service.url(""))
        hub.order(requirements="R", target_audience="A")
        creator.close()

    (request,) = [each for each in service.requests if each.method == "POST"]
    assert request.header("traceparent") == traceparent_of(hub.spans.one("hand over task"))
    assert hub.spans.one("hand over task").kind is SpanKind.CONSUMER


def test_a_receiver_is_sent_the_span_of_the_forward_of_each_try(hub: Hub):
    with Receiver(lambda _, number: 500 if number == 0 else 200) as receiver:
        hub.complete(hub.order(forward_to=[receiver.url()]))
        hub.send()
        hub.host.clock.advance(60)
        hub.send()

    first, second = hub.spans.named("forward completed")
    assert [request.header("traceparent") for request in receiver.requests] == [*map(traceparent_of, (first, second))]
    assert parent_id(first) == parent_id(second) == span_id(hub.spans.one("apply completed"))
    assert [facts_of(span)["status_code"] for span in (first, second)] == [500, 200]
    assert [span.status.status_code for span in (first, second)] == [StatusCode.ERROR, StatusCode.UNSET]
    assert first.kind is SpanKind.CLIENT


def test_a_service_that_continues_the_trace_has_its_callback_in_it(hub: Hub):
    task_id = hub.order()
    handed_over = hub.spans.one("hand over task")

    hub.complete(task_id, headers={"traceparent": traceparent_of(handed_over)})

    assert {trace_id_of(span) for span in hub.spans.all()} == {trace_id_of(handed_over)}


# --- what is kept --------------------------------------------------------------------------------------------


def test_each_row_names_the_span_that_wrote_it(hub: Hub, receiver: Receiver):
    task_id = hub.order(forward_to=[receiver.url()])
    hub.complete(task_id)

    applied = traceparent_of(hub.spans.one("apply completed"))
    assert hub.host.task(task_id).traceparent == traceparent_of(hub.spans.one("submit task"))
    assert hub.host.deliveries(task_id)[-1].traceparent == applied
    with hub.host.app.app_context():
        (forward,) = hub.host.db.session.scalars(hub.host.db.select(hub.host.state.models.forward))
        assert forward.traceparent == applied


def test_a_task_that_the_host_commits_itself_is_traced_as_well(hub: Hub):
    with hub.host.app.app_context():
        task_id = hub.host.webhook.submit(topic="Tea", commit=False).task_id
        hub.host.db.session.commit()
    sweep(hub.host)

    assert parent_id(hub.spans.one("hand over task")) == span_id(hub.spans.one("submit task"))
    assert hub.host.task(task_id).status == "submitted"


def test_a_handler_that_fails_says_so_without_its_words_and_a_later_try_goes_on_in_the_trace(hub: Hub):
    task_id = hub.order()
    hub.host.publisher.broken = True
    assert hub.complete(task_id).status_code == 500
    hub.host.publisher.broken = False
    hub.host.clock.advance(60)
    hub.host.retry()

    (broken, mended), (first, second) = hub.spans.named("handler Publisher"), hub.spans.named("apply completed")
    assert (dict(broken.attributes or {}), broken.status.status_code) == (
        {"error.type": "BrokenHandler"},
        StatusCode.ERROR,
    )
    assert mended.status.status_code is StatusCode.UNSET
    assert dict(first.attributes or {})["error.type"] == "handler_failed"
    assert parent_id(second) == span_id(first)
    assert links_of(second) == [span_id(hub.spans.one("submit task"))]
    assert "the publisher is broken" not in "".join(span.to_json() for span in hub.spans.all())


def test_a_copy_is_linked_to_the_submission_too(hub: Hub):
    task_id = hub.order()
    hub.complete(task_id)
    assert hub.complete(task_id).json["outcome"] == "duplicate"

    submitted = span_id(hub.spans.one("submit task"))
    assert [links_of(span) for span in hub.spans.named("apply completed")] == [[submitted]] * 2
    assert facts_of(hub.spans.named("apply completed")[1])["verdict"] == "duplicate"


def test_the_items_of_a_batch_have_a_span_each_and_are_accepted_in_one(worker_hub: Hub):
    tasks = [worker_hub.order() for _ in range(2)]
    items = [completed(worker_hub.host.task(task_id).creator_task_id) for task_id in tasks]

    worker_hub.host.post_batch(items, scheme="contenthub")
    worker_hub.work()

    accepted = worker_hub.spans.one("accept batch")
    applied = worker_hub.spans.named("apply completed")
    assert [parent_id(span) for span in applied] == [span_id(accepted)] * 2
    submitted = worker_hub.spans.named("submit task")
    assert sorted(links_of(span)[0] for span in applied) == sorted(map(span_id, submitted))


def test_a_cancellation_and_a_further_attempt_are_in_the_trace(hub: Hub):
    task_id = hub.order(max_retries=1)
    hub.host.post(task_id, failed(hub.host.task(task_id).creator_task_id), attempt=1)
    hub.host.clock.advance(60)
    sweep(hub.host)
    cancel(hub.host, task_id)

    submitted = span_id(hub.spans.one("submit task"))
    handed_over = hub.spans.named("hand over task")
    assert [(parent_id(span), facts_of(span)["attempt"]) for span in handed_over] == [(submitted, 1), (submitted, 2)]
    assert links_of(hub.spans.one("apply cancelled")) == [submitted]


def test_a_task_from_before_is_settled_without_a_link(hub: Hub):
    task_id = hub.host.add_task(creator_task_id="old")
    assert hub.complete(task_id).status_code == 200
    assert links_of(hub.spans.one("apply completed")) == []


def test_a_poll_within_a_span_of_the_hosts_own_is_linked_to_it(hub: Hub):
    task_id = hub.order()
    own(hub.host).known[hub.host.task(task_id).creator_task_id] = Report(
        state=RemoteState.COMPLETED, result={"content": "x"}
    )
    hub.host.clock.advance(300)
    with hub.spans.provider.get_tracer("host").start_as_current_span("nightly"):
        sweep(hub.host)
        reconcile(hub.host)
        second = submit(hub.host)
        sweep(hub.host)

    nightly = span_id(hub.spans.one("nightly"))
    assert hub.host.task(task_id).status == "completed"
    assert parent_id(hub.spans.named("submit task")[1]) == nightly
    assert links_of(hub.spans.named("hand over task")[1]) == [nightly]
    assert facts_of(hub.spans.named("hand over task")[1])["task_id"] == second


# --- sampling, ids, other setups ------------------------------------------------------------------------------


def test_what_is_not_sampled_stays_so_in_other_processes(hosts: Build, sqlite_url: str, receiver: Receiver):
    hub = Hub(hosts, sqlite_url, spans=Spans(ALWAYS_OFF))
    task_id = hub.order(forward_to=[receiver.url()])
    hub.complete(task_id)
    hub.send()

    FlaskInstrumentor.uninstrument_app(hub.host.app)
    assert hub.spans.all() == []
    sent = (hub.host.task(task_id).traceparent, receiver.requests[0].header("traceparent"))
    assert [int(str(each)[-2:], 16) & TraceFlags.SAMPLED for each in sent] == [0, 0]


def test_without_an_sdk_nothing_is_kept_or_sent(hosts: Build, database_url: str, receiver: Receiver):
    host = with_own_creator(hosts(database_url, after=WebhookTracing, **CONFIG))
    task_id = submit(host, forward_to=[receiver.url()])
    sweep(host)
    assert host.post(task_id, completed(host.task(task_id).creator_task_id)).status_code == 200
    with host.app.app_context():
        host.webhook.send_due_forwards()

    assert host.task(task_id).traceparent is None
    assert {row.traceparent for row in host.deliveries(task_id)} == {None}
    assert receiver.requests[0].header("traceparent") is None


def test_lines_of_the_log_are_written_within_the_spans(hub: Hub, caplog: pytest.LogCaptureFixture):
    """So that OpenTelemetry's own instrumentation of `logging` gives them the ids, with the current span as here."""

    def add_ids(record: logging.LogRecord) -> bool:
        record.span = trace.get_current_span().get_span_context().span_id
        return True

    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(add_ids)
    with Receiver(500) as receiver:
        task_id = hub.order(forward_to=[receiver.url()])
        hub.complete(task_id)
        hub.send()
    caplog.handler.removeFilter(add_ids)

    lines = [record for record in caplog.records if record.name.startswith("flask_contenthub_webhook")]
    spans = {record.getMessage().partition(":")[0]: vars(record)["span"] for record in lines}
    assert spans["Event completed"] == span_id(hub.spans.one("apply completed"))
    assert spans["Event submitted"] == span_id(hub.spans.one("apply submitted"))
    assert spans["Forward 1 is waiting"] == span_id(hub.spans.one("forward completed"))


def test_metrics_name_the_trace_as_an_exemplar(hosts: Build, sqlite_url: str):
    spans = Spans()

    def set_up(app: Flask) -> None:
        spans.trace(app)
        WebhookMetrics(app, path="/metrics")

    host = hosts(sqlite_url, after=set_up, **CONFIG)
    host.post(task_id := host.add_task(), completed(task_id))

    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    scrape = host.app.test_client().get("/metrics", headers=headers).text
    (line,) = re.findall(r"^contenthub_webhook_deliveries_total\{.*processed.*$", scrape, re.MULTILINE)
    applied = spans.one("apply completed")
    assert f'trace_id="{trace_id_of(applied):032x}"' in line
    assert f'span_id="{span_id(applied):016x}"' in line
    assert f'trace_id="{trace_id_of(applied):032x}"' in str(
        re.findall(r"^contenthub_webhook_acceptance_to_effect_seconds_bucket.*$", scrape, re.MULTILINE)
    )


def test_it_is_set_up_once_and_after_the_extension(lite: Hub):
    with pytest.raises(RuntimeError, match="already set up"):
        WebhookTracing(lite.host.app)
    with pytest.raises(RuntimeError, match="not registered"):
        WebhookTracing(Flask("bare"))


@pytest.mark.parametrize("at", ["should_sample", "on_start", "on_end"])
def test_what_a_sampler_or_a_processor_raises_is_logged_and_never_felt(
    hosts: Build, sqlite_url: str, at: str, caplog: pytest.LogCaptureFixture
):
    """A callback is committed by then, or its handlers have not run yet; neither may become an answer 500."""

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("The exporter's disk is full.")

    sampler, processor = StaticSampler(Decision.RECORD_AND_SAMPLE), SpanProcessor()
    setattr(sampler if at == "should_sample" else processor, at, fail)
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(processor)
    host = hosts(sqlite_url, after=lambda app: WebhookTracing(app, tracer_provider=provider), **CONFIG)

    task_id = host.add_task()
    answer = host.post(task_id, completed(task_id))

    assert (answer.status_code, host.task(task_id).status) == (200, "completed")
    assert len(host.contents(task_id)) == 1
    assert [delivery.verdict for delivery in host.deliveries(task_id)] == ["processed"]
    assert "goes on without its span" in caplog.text


# --- off -----------------------------------------------------------------------------------------------------


def test_switched_off_it_costs_a_callback_not_a_single_call(tmp_path: Path):
    """Nothing of OpenTelemetry is imported, and no function of ours that traces is called."""
    program = f"""
import cProfile, pstats, sys
from tests.support.host import completed, make_host
host = make_host("sqlite:///{tmp_path}/off.db", WEBHOOK_SUBMIT_THREADS=0)
task_ids = [host.add_task() for _ in range(5)]
host.post(task_ids[0], completed(task_ids[0]))
with cProfile.Profile() as profile:
    for task_id in task_ids[1:]:
        assert host.post(task_id, completed(task_id)).status_code == 200
called = [(file, name) for file, _, name in pstats.Stats(profile).stats]
assert len(called) > 100
print(sorted(name for name in sys.modules if "opentelemetry" in name))
print([call for call in called if call[0].endswith(("tracing.py", "spans.py", "traces.py", "trace_headers.py"))])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "[]"]
