"""Single statements that a server commits by itself: who takes that session next gets a transaction.

What the host has set up for its transactions has its effect all the same.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import DeliveryMixin
from flask_contenthub_webhook.signals import delivery_processed, task_completed
from tests.support.database_drivers import MARIADB_DRIVERS, MYSQL_CONNECTOR, through_mysql
from tests.support.host import Host, completed, failed
from tests.support.mariadb import MariaDBServer

Build = Callable[..., Host]
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}
AUTOCOMMIT = sa.text("SELECT @@autocommit")


@pytest.fixture(params=MARIADB_DRIVERS)
def host(request: pytest.FixtureRequest, hosts: Build, mariadb_url: str) -> Host:
    url = through_mysql(mariadb_url, request.param)
    return hosts(url, WEBHOOK_PROCESSING="worker", engine_options=ONE_CONNECTION)


def accept(host: Host) -> str:
    task_id = host.add_task()
    assert host.post(task_id, completed(task_id)).status_code == 202
    return task_id


def rollbacks(host: Host) -> int:
    """Return how many the session of the one pooled connection has seen."""
    with host.engine.connect() as connection:
        return int(connection.execute(sa.text("SHOW SESSION STATUS LIKE 'Com_rollback'")).one()[1])


def test_an_acceptance_is_one_statement_and_no_commit(host: Host) -> None:
    accept(host)
    task_id = host.add_task()
    assert host.post(task_id, failed(task_id)).status_code == 202  # the host's insert of the task was in between
    commits: list[object] = []
    sa.event.listen(host.engine, "commit", commits.append)

    with host.statements() as statements:
        assert host.post(task_id, completed(task_id)).status_code == 202

    assert [statement.split()[0] for statement in statements] == ["INSERT"]
    assert commits == []
    assert len(host.deliveries(task_id)) == 2


@pytest.mark.parametrize("options", [{}, {"skip_autocommit_rollback": True}], ids=["by default", "as advised"])
def test_nothing_is_rolled_back_after_an_acceptance_as_advised(
    hosts: Build, mariadb_url: str, options: dict[str, bool]
) -> None:
    if options and not options.keys() & inspect.signature(DefaultDialect).parameters.keys():
        pytest.skip("this SQLAlchemy has no such option")
    host = hosts(mariadb_url, WEBHOOK_PROCESSING="worker", engine_options={**ONE_CONNECTION, **options})
    accept(host)  # asks for the time and the size of the inbox
    tasks = [host.add_task() for _ in range(3)]
    before = rollbacks(host)
    for task_id in tasks:
        assert host.post(task_id, completed(task_id)).status_code == 202
    after = rollbacks(host)

    assert after - before == (1 if options else 4)  # one of them is that of the first question


def test_a_transaction_of_ours_can_roll_back(host: Host) -> None:
    def publish_and_fail(app: object, **extra: object) -> None:
        host.db.session.execute(sa.insert(host.Content).values(task_id="half", body="an effect"))
        raise RuntimeError("after the first half")

    task_id = accept(host)
    host.connect(task_completed, publish_and_fail)

    with host.app.app_context():
        report = host.webhook.retry_due_deliveries()

    assert report.outcomes == {"failed": 1}
    assert host.contents() == []
    assert host.task(task_id).status != "completed"


def test_a_session_of_ours_can_roll_back(host: Host) -> None:
    accept(host)

    with host.app.app_context(), host.state.database.session() as session:
        assert session.scalar(AUTOCOMMIT) == 0
        session.execute(sa.insert(host.Content).values(task_id="half", body="an effect"))

    assert host.contents() == []


def test_what_we_read_is_one_transaction(host: Host) -> None:
    accept(host)

    with host.app.app_context(), host.state.database.read() as connection:
        assert connection.scalar(AUTOCOMMIT) == 0


def test_the_host_gets_its_session_back(host: Host) -> None:
    for _ in range(2):
        accept(host)
        with host.engine.connect() as connection:
            assert connection.scalar(AUTOCOMMIT) == 0
            connection.execute(sa.insert(host.Content).values(task_id="half", body="an effect"))

    assert host.contents() == []


def test_a_host_in_autocommit_stays_in_it(hosts: Build, mariadb_url: str) -> None:
    host = hosts(
        mariadb_url, WEBHOOK_PROCESSING="worker", engine_options={**ONE_CONNECTION, "isolation_level": "AUTOCOMMIT"}
    )
    for _ in range(2):
        accept(host)
        with host.engine.connect() as connection:
            assert connection.scalar(AUTOCOMMIT) == 1


def test_a_driver_that_would_have_to_ask_gets_a_transaction(hosts: Build, mariadb_url: str) -> None:
    host = hosts(through_mysql(mariadb_url, MYSQL_CONNECTOR), WEBHOOK_PROCESSING="worker")
    accept(host)
    task_id = host.add_task()
    commits: list[object] = []
    sa.event.listen(host.engine, "commit", commits.append)

    assert host.post(task_id, completed(task_id)).status_code == 202

    assert len(commits) == 1


def test_a_lost_session_is_replaced_for_the_next_acceptance(
    hosts: Build, mariadb: MariaDBServer, mariadb_url: str
) -> None:
    host = hosts(mariadb_url, WEBHOOK_PROCESSING="worker", engine_options=ONE_CONNECTION)
    accept(host)
    first, second = host.add_task(), host.add_task()
    accept(host)

    with mariadb.outage():
        pass

    assert host.post(first, completed(first)).status_code == 202
    with mariadb.outage():
        pass
    with host.app.app_context():
        assert host.webhook.retry_due_deliveries().outcomes == {"processed": 3}
    assert host.post(second, completed(second)).status_code == 202


def test_a_transaction_of_the_host_s_in_a_receiver_can_roll_back(hosts: Build, mariadb_url: str) -> None:
    """Beside our session, with the connection that an acceptance of the same process has used last."""
    host = hosts(mariadb_url, WEBHOOK_PROCESSING="worker", engine_options={"pool_size": 2, "max_overflow": 0})
    seen: list[int] = []

    def look(app: object, **extra: object) -> None:
        acceptance = threading.Thread(target=lambda: [accept(host), accept(host)])
        acceptance.start()
        acceptance.join()
        with host.engine.connect() as connection:
            seen.append(connection.scalar(AUTOCOMMIT))
            connection.execute(sa.insert(host.Content).values(task_id="half", body="an effect"))

    accept(host)
    host.connect(delivery_processed, look)
    host.publisher.broken = True

    with host.app.app_context():
        assert host.webhook.retry_due_deliveries(limit=1).outcomes == {"failed": 1}

    assert seen == [0]
    assert host.contents("half") == []


def test_the_begin_of_a_transaction_has_its_effect(hosts: Build, postgres_url: str) -> None:
    """Row-level security with SET LOCAL, as the documentation recommends it."""
    host = hosts(postgres_url, WEBHOOK_PROCESSING="worker")
    task_id = host.add_task()
    with host.engine.begin() as connection:
        for command in (
            "DO $$ BEGIN CREATE ROLE tenant; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO tenant",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO tenant",
            "ALTER TABLE content_generation_tasks ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY hub ON content_generation_tasks USING (current_setting('app.tenant', true) = 'hub')",
        ):
            connection.exec_driver_sql(command)
    host.engine.dispose()

    @sa.event.listens_for(host.engine, "connect")
    def become_tenant(driver: Any, _: object) -> None:
        driver.execute("SET ROLE tenant")
        driver.commit()

    @sa.event.listens_for(host.engine, "begin")
    def choose_tenant(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL app.tenant = 'hub'")

    assert host.post(task_id, completed(task_id)).status_code == 202


def test_a_statement_at_each_checkout_does_no_harm(hosts: Build, server_url: str) -> None:
    host = hosts(server_url, WEBHOOK_PROCESSING="worker")
    sa.event.listen(host.engine, "engine_connect", lambda connection: connection.scalar(sa.select(1)))

    for _ in range(2):
        accept(host)


class NeverNull(sa.types.TypeDecorator[str]):
    """Text in a column that cannot be NULL."""

    impl = sa.String(255)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str:
        return value or ""


@pytest.mark.parametrize("is_nullable", [False, True])
def test_a_type_of_the_host_s_is_asked_about_none(hosts: Build, sqlite_url: str, is_nullable: bool) -> None:
    def models(db: SQLAlchemy) -> dict[str, object]:
        columns = {"__tablename__": "log", "message_id": mapped_column(NeverNull, nullable=is_nullable)}
        return {"delivery_model": type("Log", (DeliveryMixin, db.Model), columns)}

    host = hosts(sqlite_url, db=SQLAlchemy(), models=models, WEBHOOK_PROCESSING="worker")

    task_id = accept(host)

    assert [row.message_id for row in host.deliveries(task_id)] == [""]
