"""Columns of the host's that SQLAlchemy fills: they are filled whatever path of ours writes the row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin
from tests.support.host import Host, completed, failed, progress

Build = Callable[..., Host]


def word_of_task(context: Any) -> str:
    return f"of {context.get_current_parameters()['task_id']}"


class Filled:
    """One column for each kind of default; none may be null."""

    by_value: Mapped[str] = mapped_column(sa.String(20), default="host")
    by_call: Mapped[str] = mapped_column(sa.String(20), default=lambda: "called")
    by_context: Mapped[str] = mapped_column(sa.String(80), default=word_of_task)
    by_database: Mapped[str] = mapped_column(sa.String(20), default=sa.func.lower("DATABASE"))
    changed_by: Mapped[str] = mapped_column(sa.String(20), default="new", onupdate=lambda: "changed")
    seen_by: Mapped[str] = mapped_column(sa.String(20), default="new", onupdate=sa.func.lower("CHANGED"))


def own_models(db: SQLAlchemy) -> dict[str, Any]:
    task = type("Task", (Filled, GenerationTaskMixin, db.Model), {"__tablename__": "tasks"})
    return {
        "task_model": task,
        "delivery_model": type("Log", (Filled, DeliveryMixin, db.Model), {"__tablename__": "log"}),
    }


@pytest.fixture
def make(hosts: Build, database_url: str) -> Callable[..., Host]:
    return lambda **config: hosts(database_url, models=own_models, **config)


def assert_filled(host: Host) -> None:
    with host.app.app_context():
        rows = [*host.db.session.scalars(sa.select(host.webhook.delivery_model)), *host.tasks()]
        assert rows
        for row in rows:
            assert (row.by_value, row.by_call, row.by_database) == ("host", "called", "database")
            assert row.by_context == f"of {row.task_id}"
            assert row.changed_by in {"new", "changed"}
            assert (row.seen_by == "changed") == (row.changed_by == "changed")


def outcomes(host: Host, *posts: Any) -> list[Any]:
    return [answer.get_json().get("outcome", answer.status_code) for answer in posts]


def test_a_callback_its_repeat_and_every_other_event(make: Callable[..., Host]):
    host = make()
    one, two, three = (host.add_task() for _ in range(3))

    assert outcomes(
        host,
        host.post(one, progress(one, 40), attempt=1),
        host.post(one, completed(one), attempt=1),
        host.post(one, completed(one), attempt=1),
        host.post(two, failed(two), attempt=1),
        host.post(three, completed(three), path=f"/api/v1/content/callback/{three}"),
    ) == ["processed", "processed", "duplicate", "processed", 403]
    assert_filled(host)
    assert [host.task(task_id).changed_by for task_id in (one, two, three)] == ["changed", "changed", "new"]
    assert len(host.contents(one)) == 1


def test_a_callback_that_names_only_the_creators_id(make: Callable[..., Host]):
    host = make(WEBHOOK_REQUIRE_SIGNATURE=False)
    task_id = host.add_task(creator_task_id="theirs")

    posted = [host.post(task_id, completed("theirs"), path=f"/api/v1/content/callback/{task_id}") for _ in range(2)]

    assert outcomes(host, *posted) == ["processed", "duplicate"]
    assert_filled(host)


def test_a_failed_handler_and_its_next_try(make: Callable[..., Host]):
    host = make()
    task_id = host.add_task()
    host.publisher.broken = True
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
    assert_filled(host)
    host.publisher.broken = False
    host.clock.advance(40)

    assert host.retry().outcomes == {"processed": 1}
    assert_filled(host)
    assert host.deliveries()[0].changed_by == "changed"


def test_what_a_worker_applies(make: Callable[..., Host]):
    host = make(WEBHOOK_PROCESSING="worker")
    one, two = host.add_task(), host.add_task()
    batch = [{**completed(two), "token": host.token(two)}, {**progress(two, 20), "token": host.token(two)}]

    assert host.post(one, completed(one), attempt=1).status_code == 202
    assert [item["outcome"] for item in host.post_batch(batch).get_json()["results"]] == ["queued"] * 2
    assert_filled(host)
    host.clock.advance(1)
    assert host.retry().outcomes == {"processed": 2, "ignored": 1}
    assert_filled(host)
    assert {row.changed_by for row in host.deliveries()} == {"changed"}


def test_refusals_and_alerts_and_forwards_and_a_purge(make: Callable[..., Host]):
    host = make(WEBHOOK_FORWARD_URLS=["https://hooks.example/"], WEBHOOK_FORWARD_SECRET="f" * 20 + "0123456789ab")
    task_id = host.add_task()

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert [host.post(task_id, b"{}", path=f"/api/v1/content/callback/{task_id}").status_code for _ in range(3)] == [
        403
    ] * 3
    host.clock.advance(60)
    assert host.post(task_id, b"{}", path=f"/api/v1/content/callback/{task_id}").status_code == 403
    assert_filled(host)
    with host.app.app_context():
        host.webhook.check_alerts()
        host.clock.advance(86400 * 400)
        assert host.webhook.purge() >= 1
    assert_filled(host)


def test_a_replay(make: Callable[..., Host]):
    host = make()
    task_id = host.add_task()
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200

    host.replay(host.deliveries()[0].id)

    assert [row.source for row in host.deliveries()] == ["webhook", "replay"]
    assert_filled(host)


# --- what the ORM fills by itself ------------------------------------------------------------------------------


def orm_models(db: SQLAlchemy) -> dict[str, Any]:
    def own(**columns: Any) -> dict[str, Any]:
        return {
            "revision": mapped_column(sa.Integer, nullable=False),
            "kind": mapped_column(sa.String(20), nullable=False),
            **columns,
        }

    def mapper_args(cls: Any) -> dict[str, Any]:
        return {"version_id_col": cls.__table__.c.revision, "polymorphic_on": "kind", "polymorphic_identity": "plain"}

    task = own(__tablename__="tasks", __mapper_args__=declared_attr.directive(mapper_args))
    log = own(__tablename__="log", __mapper_args__=declared_attr.directive(mapper_args))
    return {
        "task_model": type("Task", (GenerationTaskMixin, db.Model), task),
        "delivery_model": type("Log", (DeliveryMixin, db.Model), log),
    }


@pytest.mark.parametrize("processing", ["inline", "worker"])
def test_a_discriminator_and_a_version_are_written_too(hosts: Build, database_url: str, processing: str):
    host = hosts(database_url, models=orm_models, WEBHOOK_PROCESSING=processing)
    one, two = host.add_task(), host.add_task()

    for event, task_id in ((completed(one), one), (completed(one), one), (failed(two), two), (b"{}", one)):
        host.post(task_id, event, attempt=1)
    host.clock.advance(1)
    host.retry()

    assert {(row.kind, row.revision) for row in host.deliveries()} == {("plain", 1)}
    assert [host.task(task_id).status for task_id in (one, two)] == ["completed", "pending"]


def test_a_host_without_defaults_keeps_the_one_statement(hosts: Build, postgres_url: str):
    host = hosts(postgres_url)
    task_id, before = host.add_task(), host.add_task()
    host.post(before, completed(before), attempt=1)  # looks once at the database

    with host.statements() as seen:
        host.post(task_id, completed(task_id), attempt=1)

    assert seen[0].startswith("WITH changed AS (UPDATE")
