"""The bytes that a settled task and its delivery take: ``python -m benchmarks.space``.

Tasks are completed by the captured callback, in this process, each by its own; then the database is asked for the size
of each table and index, and what it had before is taken off; then once more without the results in the tasks, as if
WEBHOOK_STORED_RESULT_FIELDS had left them to the bodies.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Mapping

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from .callbacks import captured_body, new_task_ids, request_bytes
from .contestants import CONTESTANTS
from .databases import DATABASES, Database, Kind, open_database
from .hosts import deliveries, tasks
from .in_process import build, call, engine_of, environ_of

__all__: list[str] = []

_INLINE = next(one for one in CONTESTANTS if one.name == "unsigned")
_FACTOR, _MORE = 1.3, 1500
"""The aim: so many times the compressed body, and so many bytes more."""
_POSTGRESQL = """
    SELECT relname || ', rows', pg_relation_size(oid) FROM pg_class WHERE relname IN :tables
    UNION ALL SELECT relname || ', long values', pg_total_relation_size(reltoastrelid) FROM pg_class
        WHERE relname IN :tables AND reltoastrelid <> 0
    UNION ALL SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index
        JOIN pg_class ON pg_class.oid = indrelid WHERE relname IN :tables
"""
_SQLITE = """
    SELECT CASE m.type WHEN 'table' THEN m.tbl_name || ', rows' ELSE m.name END, sum(s.pgsize)
    FROM dbstat AS s JOIN sqlite_master AS m ON m.name = s.name WHERE m.tbl_name IN :tables GROUP BY 1
"""
_MYSQL = """
    SELECT concat(table_name, IF(index_name = 'PRIMARY', ', rows', concat(', ', index_name))),
        stat_value * @@innodb_page_size
    FROM mysql.innodb_index_stats WHERE database_name = database() AND table_name IN :tables AND stat_name = 'size'
"""
_SETTLED = {
    "sqlite": ["VACUUM"],
    "postgresql": [f"VACUUM FULL {tasks.name}", f"VACUUM FULL {deliveries.name}"],
    "mysql": [f"OPTIMIZE TABLE {tasks.name}, {deliveries.name}", f"ANALYZE TABLE {tasks.name}, {deliveries.name}"],
}


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.space", description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="default: all")
    parser.add_argument("--tasks", type=int, default=2_000, help="default: %(default)s")
    options = parser.parse_args()
    console = Console(width=120)
    (task_id,) = new_task_ids(1)
    body = captured_body(task_id)
    compressed = len(zlib.compress(body))
    aim = _FACTOR * compressed + _MORE
    console.print(f"The body has {len(body):,} bytes, compressed {compressed:,}; the aim is {aim:,.0f}.", style="bold")
    for name in options.databases:
        _measure(console, name, options.tasks, aim)


def _measure(console: Console, name: Kind, count: int, aim: float) -> None:
    with open_database(name, durable=False) as database:
        before = _sizes(database)
        task_ids = new_task_ids(count)
        database.fill(task_ids, status="processing")
        app = build(_INLINE, database)
        for task_id in task_ids:
            call(app, environ_of(request_bytes(_INLINE.path, task_id, "none")), answer=200)
        engine_of(app).dispose()
        after = _sizes(database)
        with database.engine.begin() as connection:
            connection.execute(sa.update(tasks).values(result=None))
        once = _sizes(database)
    table = Table(title=f"{name}, {count:,} tasks", title_justify="left", title_style="bold")
    for heading in ("", "bytes for each", "without a result in the task"):
        table.add_column(heading, justify="right" if heading else "left")
    each = {
        what: ((size - before.get(what, 0)) / count, (once[what] - before.get(what, 0)) / count)
        for what, size in after.items()
    }
    for what, (both, alone) in sorted(each.items(), key=lambda one: -one[1][0]):
        if both >= 1:
            table.add_row(what, f"{both:,.0f}", f"{alone:,.0f}")
    totals = [sum(sizes) for sizes in zip(*each.values(), strict=True)]
    table.add_row("all", *(f"{total:,.0f}" if total <= aim else f"[red]missed {total:,.0f}[/]" for total in totals))
    console.print(table)


def _sizes(database: Database) -> Mapping[str, int]:
    """The bytes of each table and index, without the space that nothing uses."""
    dialect = database.engine.dialect.name
    query = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}.get(dialect, _MYSQL)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in _SETTLED[dialect]:
            connection.exec_driver_sql(statement)
        sized = sa.text(query).bindparams(sa.bindparam("tables", [tasks.name, deliveries.name], expanding=True))
        return {str(what): int(size) for what, size in connection.execute(sized)}


if __name__ == "__main__":
    main()
