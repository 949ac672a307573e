"""The applications under test: a host with the extension, and the floors that do the same work by hand.

All of them work on the same tables through engines that are set up alike. The floors are written as a good engineer
would write them: SQLAlchemy Core, statements built once, no session. They check no signature and no input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from flask import Flask, Response, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, Session, mapped_column, scoped_session

from flask_contenthub_webhook import ContentHubWebhook, task_completed
from flask_contenthub_webhook.models.columns import LongText
from flask_contenthub_webhook.models.defaults import default_models

from .callbacks import SECRET

__all__ = [
    "ENGINE_OPTIONS",
    "FACTORIES",
    "complete_by_hand",
    "contents",
    "db",
    "deliveries",
    "engine_options",
    "metadata",
    "tasks",
    "tune",
]

Handler = Literal["core", "orm"]
Processing = Literal["inline", "worker", "celery"]

ENGINE_OPTIONS: dict[str, Any] = {"pool_size": 5}


def engine_options(url: str) -> dict[str, Any]:
    """Return the engine's options, for everybody the same: as the documentation advises for the kind of database."""
    return {**ENGINE_OPTIONS, "skip_autocommit_rollback": True} if url.startswith("mysql") else ENGINE_OPTIONS


db = SQLAlchemy()
Task, Delivery = default_models(db)
metadata = db.metadata
tasks: sa.Table = Task.__table__
deliveries: sa.Table = Delivery.__table__


class Content(db.Model):  # type: ignore[name-defined, misc]
    """The host's effect. No unique key: it must not hide an effect that was had twice."""

    __tablename__ = "contents"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(sa.String(36))
    body: Mapped[str] = mapped_column(LongText)


contents: sa.Table = Content.__table__
_insert_content = sa.insert(contents)


def tune(engine: sa.Engine) -> None:
    """SQLite as a host should run it; other databases as they are."""
    if engine.dialect.name != "sqlite":
        return

    @sa.event.listens_for(engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 15000"):
            connection.execute(f"PRAGMA {pragma}")


# --- the extension -------------------------------------------------------------------------------------------


def product(url: str, *, signed: bool = False, handler: Handler = "core", processing: Processing = "inline") -> Flask:
    """A host with the extension.

    Args:
        url: of the database.
        signed: require signatures.
        handler: whether the host's handler writes through Core, as the floors do, or with ``db.session.add``.
        processing: where events are applied; of another than ``inline`` only the acceptance is measured here.
    """
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(url),
        WEBHOOK_ENABLED=True,
        WEBHOOK_SECRET_KEY=SECRET if signed else None,
        WEBHOOK_REQUIRE_SIGNATURE=signed,
        WEBHOOK_PROCESSING=processing,
        WEBHOOK_INBOX_LIMIT=0,  # nobody works it off
    )
    db.init_app(app)
    ContentHubWebhook().init_app(app, db)
    with app.app_context():
        tune(db.engine)
    task_completed.connect({"core": _publish_through_core, "orm": _publish_through_orm}[handler], sender=app)
    return app


def _publish_through_core(_: Flask, *, task: Any, result: Any, **_extra: Any) -> None:
    db.session.execute(_insert_content, {"task_id": task.task_id, "body": result["content"]})


def _publish_through_orm(_: Flask, *, task: Any, result: Any, **_extra: Any) -> None:
    db.session.add(Content(task_id=task.task_id, body=result["content"]))


# --- the floors ----------------------------------------------------------------------------------------------

_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN = ("pending", "submitted", "processing")
_complete = (
    sa.update(tasks)
    .where(tasks.c.task_id == sa.bindparam("at_task_id"), tasks.c.status.in_(_OPEN))
    .values(
        previous_status=tasks.c.status,
        version=tasks.c.version + 1,
        error_code=sa.null(),
        error_message=sa.null(),
        next_poll_at=sa.null(),
        next_submit_at=sa.null(),
    )
)
_complete_returning = _complete.returning(tasks.c.previous_status)
_insert_delivery = sa.insert(deliveries)
_select_task = sa.select(tasks.c.status).where(tasks.c.task_id == sa.bindparam("at_task_id"))
_SECRET_HEADERS = {"Authorization", "Cookie", "X-Webhook-Signature", "X-Hub-Signature-256", "Webhook-Signature"}


def floors(url: str) -> Flask:
    """The floors, as three routes of one application."""
    app = Flask(__name__)
    engine = sa.create_engine(url, **engine_options(url))
    tune(engine)
    app.extensions["benchmark_engine"] = engine

    @app.post("/bare/<task_id>")
    def bare(task_id: str) -> Response:
        """One UPDATE, the host's INSERT, COMMIT."""
        payload = json.loads(request.get_data())
        with engine.begin() as connection:
            if connection.execute(_complete, _completion(task_id, payload, datetime.now(UTC))).rowcount != 1:
                return _answer("conflict", 409)
            connection.execute(_insert_content, {"task_id": task_id, "body": payload["result"]["content"]})
        return _answer("processed")

    @app.post("/by-hand/<task_id>")
    def by_hand(task_id: str) -> Response:
        """The same, and the history row that the extension writes."""
        received_at = datetime.now(UTC)
        body = request.get_data()
        payload = json.loads(body)
        with engine.begin() as connection:
            now = datetime.now(UTC)
            before = complete_by_hand(connection, task_id, payload, now)
            if before is None:
                return _answer("conflict", 409)
            row = _history(task_id, payload, body, received_at, now, verdict="processed", before=before)
            connection.execute(_insert_delivery, row)
            connection.execute(_insert_content, {"task_id": task_id, "body": payload["result"]["content"]})
        return _answer("processed")

    @app.post("/duplicate/<task_id>")
    def duplicate(task_id: str) -> Response:
        """One SELECT, one history row, COMMIT."""
        received_at = datetime.now(UTC)
        body = request.get_data()
        payload = json.loads(body)
        with engine.begin() as connection:
            now = datetime.now(UTC)
            status = connection.execute(_select_task, {"at_task_id": task_id}).scalar_one_or_none()
            if status != "completed":
                return _answer("conflict", 409)
            row = _history(task_id, payload, body, received_at, now, verdict="duplicate", before=status)
            connection.execute(_insert_delivery, row)
        return _answer("duplicate")

    @app.post("/accept/<task_id>")
    def accept(task_id: str) -> Response:
        """One history row that waits for a worker, COMMIT."""
        received_at = datetime.now(UTC)
        body = request.get_data()
        payload = json.loads(body)
        with engine.begin() as connection:
            connection.execute(_insert_delivery, _waiting(task_id, payload, body, received_at))
        return _answer("queued", 202)

    return app


def session_floor(url: str) -> Flask:
    """The same writes by hand in the host's own ``db.session``.

    This is what the extension's promise costs that handlers write through ``db.session``, whoever writes the rest.
    """
    app = Flask(__name__)
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=engine_options(url))
    db.init_app(app)
    with app.app_context():
        tune(db.engine)

    @app.post("/session/<task_id>")
    def in_session(task_id: str) -> Response:
        received_at = datetime.now(UTC)
        body = request.get_data()
        payload = json.loads(body)
        now = datetime.now(UTC)
        session = db.session()
        before = complete_by_hand(session, task_id, payload, now)
        if before is None:
            return _answer("conflict", 409)
        row = _history(task_id, payload, body, received_at, now, verdict="processed", before=before)
        session.execute(_insert_delivery, row)
        session.execute(_insert_content, {"task_id": task_id, "body": payload["result"]["content"]})
        session.commit()
        return _answer("processed")

    return app


def complete_by_hand(
    connection: sa.Connection | Session | scoped_session[Session], task_id: str, payload: dict[str, Any], now: datetime
) -> str | None:
    """Complete a task with the result of an event; return its state before, None if it was not open."""
    return _completed(connection, _completion(task_id, payload, now))


def _completed(connection: sa.Connection | Session | scoped_session[Session], values: dict[str, Any]) -> str | None:
    """Complete a task; return its state before, None if it was not open. MariaDB returns nothing from an UPDATE."""
    bind = connection.dialect if isinstance(connection, sa.Connection) else connection.get_bind().dialect
    if bind.update_returning:
        return connection.execute(_complete_returning, values).scalar_one_or_none()
    before = connection.execute(_select_task.with_for_update(), {"at_task_id": values["at_task_id"]}).scalar()
    changed: Any = connection.execute(_complete, values)
    return before if changed.rowcount == 1 else None


def _completion(task_id: str, payload: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "at_task_id": task_id,
        "status": "completed",
        "result": payload["result"],
        "finished_at": now,
        "updated_at": now,
    }


def _history(
    task_id: str,
    payload: dict[str, Any],
    body: bytes,
    received_at: datetime,
    now: datetime,
    *,
    verdict: str,
    before: str,
) -> dict[str, Any]:
    return {
        **_arrival(task_id, payload, body, received_at),
        "tries": 1,
        "processed_at": now,
        "latency_ms": (now - received_at) / timedelta(milliseconds=1),
        "verdict": verdict,
        "reason": None if verdict == "processed" else "The task is already completed.",
        "status_before": before,
        "status_after": "completed",
    }


def _waiting(task_id: str, payload: dict[str, Any], body: bytes, received_at: datetime) -> dict[str, Any]:
    return {
        **_arrival(task_id, payload, body, received_at),
        "tries": 0,
        "processed_at": None,
        "latency_ms": None,
        "verdict": "queued",
        "next_retry_at": _AT_ONCE,
        "status_before": "processing",
    }


def _arrival(task_id: str, payload: dict[str, Any], body: bytes, received_at: datetime) -> dict[str, Any]:
    """What the extension writes down of a callback, whatever becomes of it."""
    return {
        "task_id": task_id,
        "event": payload["event"],
        "attempt": request.args.get("attempt", type=int),
        "source": "webhook",
        "scheme": None,
        "message_id": None,
        "occurrences": 1,
        "late": False,
        "replay_of": None,
        "occurred_at": datetime.fromisoformat(payload["timestamp"]),
        "received_at": received_at,
        "remote_addr": request.remote_addr,
        "headers": {
            name: "[redacted]" if name in _SECRET_HEADERS else value for name, value in request.headers.items()
        },
        "body": body,
        "body_digest": hashlib.sha256(body).hexdigest(),
    }


def _answer(outcome: str, status: int = 200) -> Response:
    return Response(json.dumps({"success": status < 300, "outcome": outcome}), status, mimetype="application/json")


FACTORIES: dict[str, Callable[..., Flask]] = {
    "floors": floors,
    "product": product,
    "session_floor": session_floor,
}
