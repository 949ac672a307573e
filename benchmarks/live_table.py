"""ContentHub's old task table with a million rows, made by the database itself in half a minute."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["OPEN_EVERY", "fill", "task_id_of"]

OPEN_EVERY = 20
"""Of so many rows one is open, in each of the four words of the old code in turn."""
_SEQUENCE = {
    "postgresql": "generate_series(1, {rows}) AS made(n)",
    "mysql": "(SELECT seq AS n FROM seq_1_to_{rows}) AS made",
    "sqlite": "(WITH RECURSIVE made(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM made WHERE n < {rows}) "
    "SELECT n FROM made) AS made",
}
_START = {
    "postgresql": "TIMESTAMP '2025-03-01 12:00' + n * INTERVAL '1 second'",
    "mysql": "TIMESTAMP('2025-03-01 12:00:00') + INTERVAL n SECOND",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S.000000', '2025-03-01 12:00', n || ' seconds')",
}
_NUMBER = {"postgresql": "lpad(n::text, 12, '0')", "mysql": "lpad(n, 12, '0')", "sqlite": "printf('%012d', n)"}
_REPEATED = {
    "postgresql": "repeat('{text}', {times})",
    "mysql": "repeat('{text}', {times})",
    "sqlite": "replace(hex(zeroblob({times} / 2)), '0', '{text}')",
}
_SETTLE = {
    "postgresql": ("VACUUM ANALYZE content_generation_tasks",),
    "mysql": ("ANALYZE TABLE content_generation_tasks",),
    "sqlite": ("PRAGMA wal_checkpoint(TRUNCATE)", "ANALYZE"),
}


def task_id_of(number: int) -> str:
    """Return the task_id of a row."""
    return f"00000000-0000-4000-8000-{number:012}"


def fill(engine: sa.Engine, rows: int) -> None:
    """Fill the tables that the host's own revision has made; a row takes about 860 bytes."""
    kind = engine.dialect.name
    words = {0: "pending", 1: "submitted", 2: "processing", 3: "running"}
    is_open = "".join(f" WHEN n % {4 * OPEN_EVERY} = {each * OPEN_EVERY} THEN '{word}'" for each, word in words.items())
    ended = "WHEN n % 20 = 1 THEN 'COMPLETED' WHEN n % 20 = 2 THEN 'failed' WHEN n % 100 = 3 THEN 'archived'"
    status = f"CASE{is_open} {ended} ELSE 'completed' END"

    def text(letter: str, times: int) -> str:
        return _REPEATED[kind].format(text=letter, times=times)

    def unless(every: int, value: str) -> str:
        return f"CASE WHEN n % {every} = 7 THEN NULL ELSE {value} END"

    number = _NUMBER[kind]
    joined = "concat({})" if kind == "mysql" else "({})"
    separator = ", " if kind == "mysql" else " || "
    task_id = joined.format(separator.join(("'00000000-0000-4000-8000-'", number)))
    result = joined.format(separator.join(('\'{"content": "\'', text("C", 300), "'\"}'")))
    values = {
        "task_id": unless(100, task_id),
        "account_id": "1 + n % 2",
        "topic": text("T", 40),
        "requirements": text("R", 260),
        "target_audience": text("A", 40),
        "keywords": '\'["content", "intelligence"]\'',
        "tone": "'dry'",
        "priority": unless(100, "1 + n % 4"),
        "auto_approve": "n % 2 = 0",
        "status": status,
        "result": f"CASE WHEN n % {OPEN_EVERY} = 0 THEN NULL ELSE {result} END",
        "retry_count": "n % 3",
        "score": "n % 100 / 4.0",
        "created_at": unless(1000, _START[kind]),
        "updated_at": unless(1000, _START[kind]),
    }
    if kind == "postgresql":
        values |= {name: f"({values[name]})::json" for name in ("keywords", "result")}
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO accounts (id, name) VALUES (1, 'one'), (2, 'two')"))
        source = _SEQUENCE[kind].format(rows=rows)
        names = ", ".join(values)
        statement = f"INSERT INTO content_generation_tasks ({names}) SELECT {', '.join(values.values())} FROM {source}"
        connection.exec_driver_sql(statement.replace("%", "%%") if kind != "sqlite" else statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in _SETTLE[kind]:
            connection.exec_driver_sql(statement)
