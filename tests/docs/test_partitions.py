"""The page on monthly partitions: its statements, over a history with which everything goes on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.support.host import Host, completed, custom
from tests.support.pages import Visitor, open_to_all

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "partitions.md").read_text(encoding="utf-8")
BEFOREHAND, EXCHANGE, PROCEDURE, CALL = re.findall(r"^```(?:pl)?(?:pg)?sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(INCLUDE_NAME,) = re.findall(r"^  ```python\n(.*?)^  ```", PAGE, re.DOTALL | re.MULTILINE)
ON_THE_PAGE, KEEP = "2026-12-01", "90 days"


def month(ahead: int) -> datetime:
    """The beginning of a month to come."""
    at = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(ahead):
        at = (at + timedelta(days=32)).replace(day=1)
    return at


@pytest.fixture
def host(hosts: Callable[..., Host], postgres_url: str) -> Host:
    config = {"WEBHOOK_SIGNATURE_SCHEMES": "url,contenthub,standard", "WEBHOOK_EVENTS": "illustrated"}
    return hosts(postgres_url, after=open_to_all, **config)


def run(host: Host, statements: str) -> None:
    """As psql does, each statement by itself, with the first of next month in the place of the page's."""
    url = host.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    parts = [statements] if "$$" in statements else statements.split(";\n")
    with psycopg.connect(url, autocommit=True) as connection:
        for part in filter(str.strip, parts):
            connection.execute(part.replace(ON_THE_PAGE, f"{month(1):%Y-%m-%d}").encode())


def call(host: Host, *, keep: str = KEEP) -> None:
    run(host, CALL.replace(KEEP, keep))


def parted(host: Host) -> Host:
    for statements in (BEFOREHAND, EXCHANGE, PROCEDURE):
        run(host, statements)
    call(host)
    return host


def partitions(host: Host) -> dict[str, int]:
    """The partitions, with their numbers of rows."""
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'webhook_deliveries'::regclass"
    with host.engine.connect() as connection:
        names = connection.execute(sa.text(query)).scalars().all()
        return {name: connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one() for name in names}


def complete(host: Host) -> str:
    task_id = host.add_task()
    assert host.post(task_id, completed(task_id, task_id)).status_code == 200
    return task_id


def told(answer: Any) -> str:
    return str(answer.get_json()["outcome"])


def findings(host: Host) -> list[Any]:
    with host.app.app_context():
        return list(host.webhook.audit())


def test_everything_goes_on_over_the_partitions(host: Host) -> None:
    old = complete(host)
    parted(host)
    names = ["before", "kept", f"{month(1):%Y_%m}", f"{month(2):%Y_%m}"]
    assert partitions(host) == {f"webhook_deliveries_{name}": int(name == "before") for name in names}

    assert told(host.post(old, completed(old, "again"))) == "duplicate"
    host.clock.now = month(1) + timedelta(days=3)
    complete(host)
    host.state.settings = replace(host.state.settings, processing="worker")
    queued = host.add_task()
    assert told(host.post(queued, completed(queued, queued))) == "queued"
    assert host.retry().outcomes == {"processed": 1}
    host.state.settings = replace(host.state.settings, processing="inline")
    assert host.replay(host.deliveries(old)[0].id).verdict == "duplicate"

    assert partitions(host)[f"webhook_deliveries_{month(1):%Y_%m}"] == 3
    assert findings(host) == []
    with host.app.app_context():
        assert host.webhook.purge(before=month(1)) == 2
    assert Visitor(host).see("/").names()


def test_what_is_needed_outlives_its_month(host: Host) -> None:
    complete(host)
    waits, signed = host.add_task(), host.add_task()
    host.publisher.broken = True
    assert host.post(waits, completed(waits, waits)).status_code == 500
    host.publisher.broken = False
    message = custom(signed, "illustrated", number=1)
    assert told(host.post_signed(signed, message, "standard", message_id="msg_1")) == "processed"
    parked = complete(host)
    with host.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE webhook_deliveries SET verdict = 'dead' WHERE task_id = :id"), {"id": parked}
        )
    parted(host)

    call(host, keep=f"-{(month(2) - datetime.now(UTC)).days + 1} days")  # as it is when that time has passed

    assert partitions(host) == {"webhook_deliveries_kept": 3, f"webhook_deliveries_{month(2):%Y_%m}": 0}
    assert told(host.post_signed(signed, message, "standard", message_id="msg_1")) == "duplicate"
    host.clock.advance(60)
    assert host.retry().outcomes == {"processed": 1}
    assert host.contents(waits) == [waits]


def test_a_month_that_was_made_too_late_gets_its_rows(host: Host) -> None:
    parted(host)
    run(host, f"DROP TABLE webhook_deliveries_{month(1):%Y_%m}")
    host.clock.now = month(1) + timedelta(days=3)
    late = complete(host)
    assert partitions(host)["webhook_deliveries_kept"] == 1

    call(host)

    assert partitions(host)[f"webhook_deliveries_{month(1):%Y_%m}"] == 1
    assert partitions(host)["webhook_deliveries_kept"] == 0
    assert told(host.post(late, completed(late, "again"))) == "duplicate"


def test_nothing_happens_if_the_lock_is_not_free(host: Host) -> None:
    complete(host)
    run(host, BEFOREHAND)
    hurried = EXCHANGE.replace("'5s'", "'50ms'")
    with host.engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM webhook_deliveries")).all()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(host, hurried)

    complete(host)
    run(host, hurried)
    assert partitions(host) == {"webhook_deliveries_before": 2, "webhook_deliveries_kept": 0}


def test_a_migration_does_not_see_the_partitions(host: Host) -> None:
    parted(host)
    found: dict[str, Any] = {}
    exec(INCLUDE_NAME.replace("\n  ", "\n").strip(), found)
    with host.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": found["include_name"]})
        assert compare_metadata(context, host.db.metadata) == []
