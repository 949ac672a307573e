"""A single statement that MariaDB commits by itself: who takes that session next must get a transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.signals import task_completed
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
