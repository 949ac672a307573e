"""A host application for in-process tests: a Content model, a handler that can be broken, and a clock that is moved."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from blinker import NamedSignal
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import make_url
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import mapped_column
from werkzeug.test import TestResponse

from flask_contenthub_webhook import ContentHubWebhook, default_models, task_completed
from flask_contenthub_webhook.core.received import Outcome, ReceivedEvent, Source
from flask_contenthub_webhook.core.signatures import SCHEMES, sign_headers, sign_url
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.engine.apply import apply_event
from flask_contenthub_webhook.runtime.state import WebhookState
from flask_contenthub_webhook.storage.store import Capabilities, Store

SECRET = "correct-horse-battery-staple-of-forty-bytes"
OTHER_SECRET = "quite another secret that nobody has been given"
PREFIX = "/api/v1/content"
CAPTURES = Path(__file__).resolve().parents[1] / "captures" / "callbacks"
BODY_SCHEMES = tuple(name for name, scheme in SCHEMES.items() if scheme.authenticates == "body")


class Clock:
    """The time of one application; it stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class BrokenHandler(RuntimeError):
    """What the handler raises while it is broken."""


@dataclass
class Publisher:
    """The host's handler of `task_completed`: one Content row for each call."""

    db: SQLAlchemy
    content: type[Any]
    broken: bool = False
    calls: int = 0

    def __call__(self, app: Flask, *, task: Any, result: Mapping[str, Any], **extra: Any) -> None:
        self.calls += 1
        self.db.session.add(self.content(task_id=task.task_id, body=result["content"]))
        if self.broken:
            self.db.session.flush()
            raise BrokenHandler("the publisher is broken")


@dataclass
class Host:
    """One application with everything that a test asks it."""

    app: Flask
    db: SQLAlchemy
    webhook: ContentHubWebhook
    Content: type[Any]
    publisher: Publisher
    clock: Clock
    _connected: list[tuple[NamedSignal, Callable[..., Any]]] = field(default_factory=list)

    # --- the application -------------------------------------------------------------------------------------

    @property
    def state(self) -> WebhookState:
        state: WebhookState = self.app.extensions["contenthub_webhook"]
        return state

    @property
    def engine(self) -> sa.Engine:
        with self.app.app_context():
            return self.db.engine

    def connect(self, signal: NamedSignal, receiver: Callable[..., Any]) -> Callable[..., Any]:
        """Connect a receiver to this application alone, until the end of the test."""
        signal.connect(receiver, sender=self.app, weak=False)
        self._connected.append((signal, receiver))
        return receiver

    def use_features(self, **capabilities: bool) -> None:
        """Use the database as if it could do no more than this; without arguments, no more than every one can."""
        self.state.database.store = Store(
            self.state.task_model,
            self.state.delivery_model,
            lock_timeout=self.state.settings.timeout,
            capabilities=Capabilities(**{"returning": False, "skip_locked": False, **capabilities}),
            clock=self.state.store.clock,
        )

    def close(self) -> None:
        if isinstance(self.state.creator, HttpCreator):
            self.state.creator.close()
        for signal, receiver in self._connected:
            signal.disconnect(receiver)  # with a sender named, blinker keeps the receiver, and with it this whole host
        with self.app.app_context():
            self.db.session.remove()
            for engine in self.db.engines.values():
                engine.dispose()

    # --- what is in the database -----------------------------------------------------------------------------

    def add_task(self, **values: Any) -> str:
        """Write a task row and return its id."""
        with self.app.app_context():
            row = self.state.task_model(**{"task_id": str(uuid.uuid4()), "status": "submitted", **values})
            self.db.session.add(row)
            self.db.session.commit()
            return str(row.task_id)

    def task(self, task_id: str) -> Any:
        """The row as it is in the database now."""
        with self.app.app_context():
            model = self.state.task_model
            found = self.db.session.scalars(sa.select(model).where(model.task_id == task_id)).one()
            self.db.session.expunge_all()
            return found

    def tasks(self) -> list[Any]:
        with self.app.app_context():
            return list(self.db.session.scalars(sa.select(self.state.task_model).order_by(self.state.task_model.id)))

    def deliveries(self, task_id: str | None = None) -> list[Any]:
        """The history rows, in the order in which they came."""
        with self.app.app_context():
            model = self.state.delivery_model
            query = sa.select(model).order_by(model.id)
            if task_id is not None:
                query = query.where(model.task_id == task_id)
            return list(self.db.session.scalars(query))

    def delivery(self, delivery_id: int) -> Any:
        return next(row for row in self.deliveries() if row.id == delivery_id)

    def contents(self, task_id: str | None = None) -> list[str]:
        """The bodies of the Content rows."""
        with self.app.app_context():
            query = sa.select(self.Content).order_by(self.Content.id)
            rows = self.db.session.scalars(query)
            return [row.body for row in rows if task_id is None or row.task_id == task_id]

    @contextlib.contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Every SQL statement and COMMIT that is sent meanwhile, by its first words."""
        seen: list[str] = []
        engine = self.engine

        def on_statement(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            seen.append(" ".join(statement.split()))

        def on_commit(connection: Any) -> None:
            seen.append("COMMIT")

        sa.event.listen(engine, "before_cursor_execute", on_statement)
        sa.event.listen(engine, "commit", on_commit)
        try:
            yield seen
        finally:
            sa.event.remove(engine, "before_cursor_execute", on_statement)
            sa.event.remove(engine, "commit", on_commit)

    # --- requests --------------------------------------------------------------------------------------------

    def token(self, task_id: str, attempt: int | None = None) -> str:
        return sign_url(SECRET, task_id, attempt)

    def path(self, task_id: str, attempt: int | None = None) -> str:
        """Path and query of the callback URL as the creator is given it."""
        with self.app.app_context():
            url = urlsplit(self.webhook.callback_url(task_id, attempt, base_url="https://hub.example"))
        return f"{url.path}?{url.query}" if url.query else url.path

    def post(
        self,
        task_id: str,
        event: Mapping[str, Any] | bytes,
        *,
        attempt: int | None = None,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = "application/json",
        **options: Any,
    ) -> TestResponse:
        """Send one event with the URL that the creator was given, or to another `path`."""
        body = event if isinstance(event, bytes) else encode(event)
        return self.app.test_client().post(
            self.path(task_id, attempt) if path is None else path,
            data=body,
            headers=dict(headers or {}),
            content_type=content_type,
            **options,
        )

    def post_signed(
        self, task_id: str, event: Mapping[str, Any] | bytes, scheme: str, *, attempt: int | None = None, **options: Any
    ) -> TestResponse:
        """Send one event signed over its body, to a URL without a token."""
        body = event if isinstance(event, bytes) else encode(event)
        query = "" if attempt is None else f"?attempt={attempt}"
        path = f"{PREFIX}/callback/{task_id}{query}"
        message_id = options.pop("message_id", None)
        return self.post(
            task_id, body, path=path, headers=signed(body, scheme, self.clock.now, message_id=message_id), **options
        )

    def post_batch(self, events: Any, *, scheme: str | None = None, raw: bytes | None = None) -> TestResponse:
        body = raw if raw is not None else encode({"events": events})
        headers = {} if scheme is None else signed(body, scheme, self.clock.now)
        return self.app.test_client().post(
            f"{PREFIX}/callbacks", data=body, headers=headers, content_type="application/json"
        )

    # --- events from within ----------------------------------------------------------------------------------

    def trigger(self, task_id: str, trigger: Trigger) -> Outcome:
        """Ask for what no callback asks for: a cancellation, a timeout."""
        return apply_event(self.state, ReceivedEvent.internal(trigger, task_id, Source.HOST, self.clock()))

    def pass_deadline(self, task_id: str) -> None:
        """Let the task's time be up, as a task that nobody reported on for long."""
        with self.app.app_context():
            task = self.db.session.scalars(self.db.select(self.webhook.task_model).filter_by(task_id=task_id)).one()
            task.deadline_at = self.clock()
            self.db.session.commit()

    def retry(self) -> Any:
        with self.app.app_context():
            return self.webhook.retry_due_deliveries()

    def replay(self, delivery_id: int) -> Outcome:
        with self.app.app_context():
            return self.webhook.replay(delivery_id)


def make_host(
    database_url: str,
    *,
    webhook: ContentHubWebhook | None = None,
    db: SQLAlchemy | None = None,
    engine_options: Mapping[str, Any] | None = None,
    before: Callable[[Flask], None] | None = None,
    after: Callable[[Flask], None] | None = None,
    create_tables: bool = True,
    models: Callable[[SQLAlchemy], Mapping[str, Any]] | None = None,
    flask: Mapping[str, Any] | None = None,
    **config: Any,
) -> Host:
    """Build a host application. By default it is enabled, has a secret and requires signatures.

    Args:
        database_url: an empty database.
        webhook: the extension object, where several applications share one.
        db: the database object, where several applications share one; by default all hosts of the process do.
        engine_options: of SQLAlchemy.
        before: called with the application before the extension is registered.
        after: called with the application after that.
        create_tables: make the tables.
        models: makes the host's own models, and other arguments of `init_app`.
        flask: more arguments of `Flask`.
        **config: of the application; a WEBHOOK_ key given as `...` is left unset.
    """
    app = Flask("host", **(flask or {}))
    settings = {
        "SECRET_KEY": "sessions",
        "TESTING": True,
        "SQLALCHEMY_DATABASE_URI": database_url,
        "SQLALCHEMY_ENGINE_OPTIONS": dict(engine_options or {}),
        "WEBHOOK_ENABLED": True,
        "WEBHOOK_SECRET_KEY": SECRET,
        "WEBHOOK_REQUIRE_SIGNATURE": True,
        **config,
    }
    app.config.update({key: value for key, value in settings.items() if value is not ...})
    own_models = db is not None or models is not None
    db = db if db is not None else SQLAlchemy() if own_models else _shared_database()
    if not own_models:
        assert _shape(db) == db.metadata.info["shape"], "a test changed what all hosts share: give it a `db` of its own"
    db.init_app(app)
    content = db.metadata.info.get("content") or _content_model(db)
    if before is not None:
        before(app)
    webhook = webhook if webhook is not None else ContentHubWebhook()
    webhook.init_app(app, db, **(models(db) if models is not None else {}))
    if after is not None:
        after(app)
    clock = Clock()
    app.extensions["contenthub_webhook"].clock = clock
    host = Host(app, db, webhook, content, Publisher(db, content), clock)
    host.connect(task_completed, host.publisher)
    if create_tables:
        with app.app_context():
            db.create_all() if own_models else _make_tables(db.engine)
    return host


@functools.cache
def _shared_database() -> SQLAlchemy:
    """The database object of all hosts with the default models: to declare these took longer than most of the tests."""
    db = SQLAlchemy()
    default_models(db)
    _content_model(db)
    db.metadata.info["shape"] = _shape(db)
    return db


def _shape(db: SQLAlchemy) -> dict[str, tuple[int, ...]]:
    """Whether two tests that share the models share the same ones."""
    tables = db.metadata.tables.items()
    return {name: (len(table.columns), len(table.constraints), len(table.indexes)) for name, table in tables}


def _make_tables(engine: sa.Engine) -> None:
    """What `create_all` does, in one go: most tests begin with it."""
    connection = engine.raw_connection()
    try:
        driver: Any = connection.driver_connection
        statements = _tables_statements(engine.dialect.name)
        match engine.driver:
            case "pysqlite":
                driver.executescript(";\n".join(statements))
            case "psycopg":
                driver.execute(";\n".join(statements))
            case _:  # one at a time
                cursor = driver.cursor()
                for statement in statements:
                    cursor.execute(statement)
                cursor.close()
        connection.commit()
    finally:
        connection.close()


@functools.cache
def _tables_statements(dialect: str) -> list[str]:
    statements: list[sa.schema.ExecutableDDLElement] = []
    for table in _shared_database().metadata.sorted_tables:
        statements += [
            sa.schema.CreateTable(table, if_not_exists=True),
            *(sa.schema.CreateIndex(index, if_not_exists=True) for index in table.indexes),
        ]
    speaks = make_url(f"{dialect}://").get_dialect()()
    return [str(statement.compile(dialect=speaks)) for statement in statements]


def _content_model(db: SQLAlchemy) -> type[Any]:
    """No unique constraint: two effects of one task would both be there to be counted."""
    model = type(
        "Content",
        (db.Model,),
        {
            "__tablename__": "contents",
            "id": mapped_column(sa.Integer, primary_key=True),
            "task_id": mapped_column(sa.String(64), nullable=False),
            "body": mapped_column(sa.Text().with_variant(mysql.LONGTEXT(), "mysql")),
        },
    )
    db.metadata.info["content"] = model
    return model


# --- events ------------------------------------------------------------------------------------------------------


def encode(event: Any) -> bytes:
    """JSON as the real sender writes it."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def completed(task_id: str, content: str | None = "# 键\n\n正文 🚀", **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"wordCount": 3, "metrics": {"tokensUsed": 12, "cost": 0.01, "duration": 900}}
    if content is not None:
        result["content"] = content
    return {**_envelope(task_id, "completed"), "result": result, **more}


def failed(
    task_id: str, message: str = "LLM 请求失败", *, retryable: bool | None = None, **more: Any
) -> dict[str, Any]:
    details: dict[str, Any] = {"duration": 12, "stepsCompleted": []}
    if retryable is not None:
        details["retryable"] = retryable
    error = {"message": message, "type": "execution_error", "details": details}
    return {**_envelope(task_id, "failed"), "error": error, **more}


def progress(task_id: str, percentage: float, **more: Any) -> dict[str, Any]:
    return {**_envelope(task_id, "progress"), "progress": {"percentage": percentage, "message": "写作中"}, **more}


def custom(task_id: str, event: str, **more: Any) -> dict[str, Any]:
    return {**_envelope(task_id, event), **more}


def _envelope(task_id: str, event: str) -> dict[str, Any]:
    return {
        "event": event,
        "taskId": task_id,
        "workflowType": "content-creator",
        "status": event,
        "timestamp": "2026-11-23T15:27:35.632Z",
        "metadata": {"topic": "键", "requirements": "R", "targetAudience": "A"},
    }


def signed(
    body: bytes, scheme: str, now: datetime, *, secret: str = SECRET, message_id: str | None = None
) -> dict[str, str]:
    """The headers that sign a body."""
    message_id = message_id or f"msg_{uuid.uuid4().hex}"
    return sign_headers(scheme, body, secret, message_id=message_id, timestamp=int(now.timestamp()))


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make every call in a thread of its own, all at the same moment; the answers in order."""
    gate = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        gate.wait(30)
        try:
            answers[index] = call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            answers[index] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


# --- captures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Capture:
    """One request of the real sender, as its bytes left the socket."""

    name: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


def captures() -> dict[str, Capture]:
    """The real requests by name; Host and Content-Length are left to the client that sends them again."""
    found: dict[str, Capture] = {}
    for path in sorted(CAPTURES.glob("*.http")):
        head, _, body = path.read_bytes().partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
        headers = {name: value for name, value in lines if name not in {"Host", "Content-Length", "Connection"}}
        found[path.stem] = Capture(path.stem, headers, body)
    return found
