"""JSON in the columns of our tables, and times that an older application left there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.support.database_drivers import MARIADB_DRIVERS, through_mysql
from tests.support.host import Host, completed, encode, failed

Build = Callable[..., Host]
WIDE = "中文 é 🚀"


class TestJson:
    """JSON is written as it is; what was written with escapes means the same."""

    def written(self, host: Host, task_id: str) -> str:
        cast = "CAST(result AS TEXT)" if host.engine.dialect.name != "mysql" else "result"
        with host.engine.connect() as connection:
            found = connection.execute(
                sa.text(f"SELECT {cast} FROM content_generation_tasks WHERE task_id = :id"), {"id": task_id}
            ).scalar_one()
        return str(found)

    def test_text_is_written_without_escapes(self, host: Host) -> None:
        task_id = host.add_task(keywords=["茶", "🚀"], topic="t")
        assert host.post(task_id, completed(task_id, WIDE)).status_code == 200
        assert WIDE in self.written(host, task_id)
        assert host.task(task_id).result["content"] == WIDE
        assert host.task(task_id).keywords == ["茶", "🚀"]

    def test_a_host_reads_into_it(self, host: Host) -> None:
        task_id = host.add_task()
        assert host.post(task_id, completed(task_id, WIDE)).status_code == 200
        with host.app.app_context():
            task = host.state.task_model
            query = sa.select(task.task_id).where(task.result["content"].as_string() == WIDE)
            assert host.db.session.scalars(query).all() == [task_id]

    def test_rows_with_escapes_are_read_and_their_copies_are_found(self, host: Host) -> None:
        task_id = host.add_task()
        event = completed(task_id, WIDE)
        assert host.post(task_id, json.dumps(event).encode()).status_code == 200
        with host.engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE content_generation_tasks SET result = :result WHERE task_id = :id"),
                {"id": task_id, "result": json.dumps(event["result"])},
            )
        assert "\\u4e2d" in self.written(host, task_id)
        assert host.task(task_id).result == event["result"]
        answer = host.post(task_id, encode(event))
        assert answer.json is not None
        assert answer.json["outcome"] == "duplicate"

    def test_a_serializer_of_the_hosts_is_used(self, hosts: Build, sqlite_url: str) -> None:
        host = hosts(sqlite_url, engine_options={"json_serializer": lambda value: json.dumps(value, default=str)})
        task_id = host.add_task(creator_options={"until": timedelta(hours=1)})
        assert host.task(task_id).creator_options == {"until": "1:00:00"}

    def test_null_is_null(self, host: Host) -> None:
        task_id = host.add_task(result=None)
        with host.app.app_context():
            task = host.state.task_model
            assert host.db.session.scalars(sa.select(task.task_id).where(task.result.is_(None))).all() == [task_id]


@pytest.mark.parametrize("driver", MARIADB_DRIVERS)
def test_a_zero_date_of_before_is_none(mariadb_url: str, hosts: Build, driver: str) -> None:
    host = hosts(through_mysql(mariadb_url, driver))
    task_id = host.add_task()
    with host.engine.begin() as connection:
        connection.execute(sa.text("SET SESSION sql_mode = ''"))
        connection.execute(sa.text("UPDATE content_generation_tasks SET created_at = 0, updated_at = 0"))
    assert host.task(task_id).created_at is None
    assert host.post(task_id, failed(task_id, retryable=False)).status_code == 200
    assert host.task(task_id).status == "failed"
