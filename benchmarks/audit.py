"""`flask webhook audit` of many tasks: ``python -m benchmarks.audit --database mariadb --tasks 1000000``.

One task lives through a progress and a completion, with real callbacks, and is copied by the database itself, under ids
in no order. The exit code is 1 if something was found, or if it took longer than a minute for a million tasks.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from flask_contenthub_webhook.operations.audit import audit
from tests.support.host import Host, completed, make_host, progress
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer

_POSTGRESQL = {"shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off"}
_MARIADB = {"innodb-buffer-pool-size": "1G", "innodb-log-file-size": "1G"}
_A_MINUTE, _A_MILLION = 60, 1_000_000


@contextmanager
def open_database(kind: str) -> Iterator[str]:
    """A new database of that kind, gone at the end; its URL."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            yield f"sqlite:///{Path(directory) / 'bench.sqlite3'}"
    elif kind == "postgresql":
        with PostgresServer(settings=_POSTGRESQL) as server:
            yield server.create_database()
    else:
        with MariaDBServer(settings=_MARIADB) as server:
            yield server.create_database()


def fill(host: Host, tasks: int) -> int:
    """Live one life, and double the tables until there are so many tasks or more; return their number."""
    task_id = host.add_task()
    host.post(task_id, progress(task_id, 40))
    host.post(task_id, completed(task_id, "x" * 250))
    count, number = 1, 0
    tables = [host.state.task_model.__table__, host.state.delivery_model.__table__]
    sa.event.listen(host.engine, "connect", _with_md5)
    host.engine.dispose()
    while count < tasks:
        number += 1
        with host.engine.begin() as connection:
            for table in tables:
                connection.execute(_copies(table, str(number)))
        count *= 2
    _settle(host.engine)
    return count


def _with_md5(driver: object, _record: object) -> None:
    if hasattr(driver, "create_function"):
        driver.create_function("md5", 1, lambda text: hashlib.md5(text.encode()).hexdigest(), deterministic=True)


def _copies(table: sa.Table, suffix: str) -> sa.Insert:
    """All rows once more; deliveries get the new ids of their tasks."""
    others = [column for column in table.columns if column.name not in {"id", "task_id"}]
    copied = sa.select(sa.func.md5(table.c.task_id.concat(suffix)), *others)
    return sa.insert(table).from_select(
        ["task_id", *(column.name for column in others)], copied, include_defaults=False
    )


def _settle(engine: sa.Engine) -> None:
    """What a database in use has done by itself."""
    statements = {
        "sqlite": ["ANALYZE"],
        "postgresql": ["VACUUM ANALYZE", "CHECKPOINT"],
    }.get(engine.dialect.name, ["ANALYZE TABLE content_generation_tasks", "ANALYZE TABLE webhook_deliveries"])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(sa.text(statement)).close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure an audit.")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "mariadb"), default="sqlite")
    parser.add_argument("--tasks", type=int, default=100_000)
    options = parser.parse_args()
    with open_database(options.database) as url:
        host = make_host(url)
        began = time.perf_counter()
        made = fill(host, options.tasks)
        print(f"{options.database}: {made:,} tasks made in {time.perf_counter() - began:.0f} s", flush=True)
        began, cpu = time.perf_counter(), time.process_time()
        found = list(audit(host.state, whole_history=True))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(f"audited in {took:.1f} s ({cpu:.1f} s of this process), {len(found)} findings", flush=True)
        for finding in found[:5]:
            print(f"  {finding}")
        host.close()
    return int(bool(found) or took > _A_MINUTE * max(1.0, made / _A_MILLION))


if __name__ == "__main__":
    sys.exit(main())
