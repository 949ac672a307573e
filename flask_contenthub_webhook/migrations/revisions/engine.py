"""The part that all revisions share; `flask webhook migrations install` copies it into each of them.

A revision is a list of steps. Each commits for itself, where the database allows it, and is only made if something is
left to do for it; an upgrade that was cut off goes on where it was. A lock that stops others is waited for only
briefly, since all others queue behind who waits, and asked for again until it is free.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

# --- the engine ---
MYSQL = ("mysql", "mariadb")
POSTGRESQL_MUST_WAIT = {"55P03", "40P01"}
MYSQL_MUST_WAIT = {1205, 1213}
TRIES_WITHOUT_WAITING = 8
WORTH_COUNTING = 1.0
"""Seconds of work before a refusal, after which a try is a loss."""
MYSQL_WAITS_BRIEFLY = "SET SESSION innodb_lock_wait_timeout = 1"
OPTIONS = {"lock_timeout": (200, 1), "patience": (600_000, 0), "batch": (1000, 1), "pause": (20, 0)}
"""By name: the default and the least value; times are in milliseconds.

They are changed by `-x contenthub_lock_timeout=500` or the variable CONTENTHUB_LOCK_TIMEOUT.
"""
LARGEST_OPTION = (1 << 31) - 1

STOPS = {
    "everybody": "everybody, for an instant",
    "writers": "writers, for an instant",
    "rows": "writers of the same rows, for one batch",
    "nobody": "nobody",
    "nobody yet": "nobody: it is new",
    "at its end": "nobody, but everybody for an instant at its end",
    "all along": "everybody, until it is done",
}
LOCKS = {
    "everybody": {"postgresql": "ACCESS EXCLUSIVE", "mysql": "ALGORITHM=INSTANT"},
    "writers": {"postgresql": "SHARE ROW EXCLUSIVE", "mysql": "an exclusive metadata lock"},
    "rows": {"postgresql": "ROW EXCLUSIVE", "mysql": "row locks"},
    "nobody": {"postgresql": "SHARE UPDATE EXCLUSIVE", "mysql": "ALGORITHM=INPLACE, LOCK=NONE"},
    "at its end": {"mysql": "ALGORITHM=INPLACE, LOCK=NONE"},
    "all along": {"postgresql": "ACCESS EXCLUSIVE", "mysql": "ALGORITHM=COPY", "sqlite": "the write lock of the file"},
}

log = logging.getLogger("alembic.contenthub")


class Step(NamedTuple):
    """A change that is made and committed by itself.

    Args:
        title: its purpose.
        lock: whom it stops, and by which lock.
        run: makes it.
        work: `instant`, `fill`, `scan`, `index` or `rewrite`, for an estimate of its time.
        table: the table that it works on, if not the first one of the revision.
    """

    title: str
    lock: str
    run: Callable[[], None]
    work: str = "instant"
    table: str = ""


def stops(whom: str) -> str:
    """Return whom a lock stops and for how long, and the lock's name here."""
    lock = LOCKS.get(whom, {}).get(dialect())
    return f"{STOPS[whom]} ({lock})" if lock else STOPS[whom]


def run_steps(steps: Iterable[Step]) -> None:
    """Run steps, each in a transaction of its own where that is possible."""
    with own_transactions():
        for step in steps:
            log.info("contenthub: %s; stops %s", step.title, step.lock)
            step.run()


@contextmanager
def own_transactions() -> Iterator[None]:
    """Leave the transaction of Alembic, which would hold every lock until the last revision has been made."""
    context = op.get_context()
    if dialect() == "sqlite":
        yield
        return
    if not context.as_sql and in_foreign_transaction():
        log.warning(
            "contenthub: migrations/env.py has begun a transaction itself: all is done in it, and its locks last until "
            "it ends. Let env.py begin none to have each step committed by itself."
        )
        yield
        return
    with context.autocommit_block():
        if dialect() == "postgresql":
            before, after = [lock_timeout(), "SET timezone = 'UTC'"], ["RESET timezone", "RESET lock_timeout"]
        else:  # which would lock the gaps between rows, and get into the way of INSERTs
            before = ["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"]
            after = [f"SET SESSION {each}lock_wait_timeout = DEFAULT" for each in ("", "innodb_")]
            after.append("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for statement in before:
            execute(statement)
        yield
        for statement in after:
            execute(statement)


def in_foreign_transaction() -> bool:
    """Tell whether somebody else than Alembic has begun the transaction."""
    return op.get_context()._transaction is None and op.get_bind().in_transaction()  # noqa: SLF001


def commits_each() -> bool:
    """Tell whether statements are committed one by one."""
    return op.get_context().as_sql or op.get_bind().get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def politely(*statements: str, table: str, long: bool = False) -> None:
    """Execute statements that stop others, in one transaction, without waiting long for the locks.

    Args:
        *statements: the statements.
        table: the table that must be locked, as it is written in SQL.
        long: they work long before they ask for the last lock (MySQL), so that another try is dear.
    """
    if op.get_context().as_sql or not commits_each():
        if dialect() == "postgresql":
            execute(lock_timeout() if commits_each() else f"SET LOCAL {lock_timeout()[4:]}")
        for statement in statements:
            execute(statement)
        return
    if dialect() == "postgresql":
        keep_asking(lambda _attempt: in_postgresql(statements, table), table)
        return
    for statement in statements:  # each is committed by itself, and must not be repeated for the next one's sake
        one_in_mysql(statement, table, long=long)


def lock_timeout() -> str:
    """Return the statement that lets others wait behind us only briefly."""
    return f"SET lock_timeout = '{option('lock_timeout')}ms'"


def in_postgresql(statements: tuple[str, ...], table: str) -> None:
    """Take a lock first that only maintenance minds: who waits for it stops nobody, and an autovacuum gives way."""
    execute("BEGIN")
    try:
        execute("SET LOCAL lock_timeout = '10s'")
        execute(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
        execute(f"SET LOCAL lock_timeout = '{option('lock_timeout')}ms'")
        for statement in statements:
            execute(statement)
        execute("COMMIT")
    except BaseException:
        with suppress(sa.exc.DBAPIError):
            execute("ROLLBACK")
        raise


def one_in_mysql(statement: str, table: str, *, long: bool) -> None:
    """Execute one statement, and ask again where the lock is not free."""
    lost: list[float] = []
    must_wait_from = time.monotonic() + option("patience") / 2000

    def run(_attempt: int) -> None:
        waits = long and (len(lost) >= TRIES_WITHOUT_WAITING or time.monotonic() > must_wait_from)
        in_mysql(statement, lost, waits=waits)

    keep_asking(run, table)


def in_mysql(statement: str, lost: list[float], *, waits: bool) -> None:
    """Do not wait for a metadata lock: a transaction that reads, and then writes meanwhile, is ended as a deadlock.

    Nearly every refusal comes at once. What works long before it is refused the last lock waits in the end, or might
    never be done.

    Args:
        statement: the statement.
        lost: the seconds of tries that had worked before they were refused; this one's may be added.
        waits: wait for the lock, for a second.
    """
    execute(f"SET SESSION lock_wait_timeout = {int(waits)}")
    execute(MYSQL_WAITS_BRIEFLY)
    began = time.monotonic()
    try:
        execute(statement)
    except sa.exc.DBAPIError:
        took = time.monotonic() - began
        lost += [took] if took > WORTH_COUNTING else []
        raise


def keep_asking(run: Callable[[int], Any], table: str) -> None:
    """Run it until it gets its locks, and say who has them."""
    began, said, attempt = time.monotonic(), 0.0, 1
    while True:
        try:
            run(attempt)
        except (sa.exc.DBAPIError, RowsAreLocked) as error:
            if isinstance(error, sa.exc.DBAPIError) and not must_wait(error):
                raise
            now = time.monotonic()
            if now - began > option("patience") / 1000:
                raise CommandError(
                    f"{table}, or a row of it, was locked for {now - began:.0f} seconds, by {holders(table)}. What is "
                    "done so far is committed; run the same command again to go on."
                ) from error
            if now - said > 1:
                said = now
                log.warning("contenthub: %s is locked by %s; trying again (%d)", table, holders(table), attempt)
            attempt += 1
            time.sleep(random.uniform(0.05, min(0.1 * attempt, 1.0)))  # noqa: S311 - so as not to keep in step
        else:
            return


def must_wait(error: sa.exc.DBAPIError) -> bool:
    """Tell whether a statement failed only because others had a lock."""
    cause: Any = error.orig
    if dialect() == "postgresql":
        return (getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)) in POSTGRESQL_MUST_WAIT
    return bool(cause.args) and cause.args[0] in MYSQL_MUST_WAIT


def holders(table: str) -> str:
    """Name the oldest sessions that may hold the lock."""
    postgresql = """
        SELECT DISTINCT a.pid, a.usename, a.application_name, a.state, date_trunc('second', now() - a.xact_start),
            left(a.query, 60), a.xact_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.relation = to_regclass(:table) AND l.granted AND a.pid <> pg_backend_pid()
        ORDER BY a.xact_start LIMIT 3"""
    mysql = """
        SELECT p.id, p.user, p.host, p.command, timediff(now(), t.trx_started), left(coalesce(p.info, ''), 60)
        FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
        WHERE p.id <> connection_id() ORDER BY t.trx_started LIMIT 3"""
    statement = sa.text(postgresql).bindparams(table=table) if dialect() == "postgresql" else sa.text(mysql)
    try:
        rows = op.get_bind().execute(statement).all()
    except sa.exc.DBAPIError:  # it is not for everybody to see
        rows = []
    found = [f"session {r[0]} ({r[1]}, {r[2]}, {r[3]}, for {r[4]}): {' '.join(str(r[5]).split())!r}" for r in rows]
    return "; ".join(found) or "a session that has gone or cannot be seen"


def execute(statement: str | sa.Executable) -> sa.CursorResult[Any] | None:
    """Execute SQL as it is written, or print it."""
    if op.get_context().as_sql:
        op.execute(sa.text(statement.replace(":", "\\:")) if isinstance(statement, str) else statement)
        return None
    bind = op.get_bind()
    return bind.exec_driver_sql(escaped(statement)) if isinstance(statement, str) else bind.execute(statement)


def escaped(statement: str) -> str:
    """Leave a percent sign alone: drivers with the styles `format` and `pyformat` would see a parameter."""
    return statement.replace("%", "%%") if op.get_context().dialect.paramstyle in {"format", "pyformat"} else statement


def patiently(statement: str, *, table: str) -> None:
    """Execute a statement whose lock nobody but maintenance minds."""
    if dialect() == "postgresql" and commits_each():
        execute("SET lock_timeout = '10s'")
    if op.get_context().as_sql or not commits_each():
        execute(statement)
    else:
        keep_asking(lambda _attempt: execute(statement), table)


def drop_index(index: str, table: str) -> None:
    """Drop an index while others read and write."""
    if dialect() == "mysql":
        politely(f"DROP INDEX {quote(index)} ON {table}", table=table)
        return
    concurrently = "CONCURRENTLY " if commits_each() else ""
    if concurrently:
        execute("SET lock_timeout = 0")
    execute(f"DROP INDEX {concurrently}IF EXISTS {beside(table, quote(index))}")


def index_concurrently(index: str, definition: str, table: str, *, unique: bool = False) -> None:
    """Create an index while others write; what a cut has left of it is dropped before.

    Args:
        index: its name, quoted.
        definition: what follows the name of the table.
        table: as it is written in SQL.
        unique: make it unique.
    """
    kind = "UNIQUE INDEX" if unique else "INDEX"
    if dialect() != "postgresql":
        online = " ALGORITHM=INPLACE LOCK=NONE" if dialect() == "mysql" else ""
        politely(f"CREATE {kind} {index} ON {table} {definition}{online}", table=table, long=True)
        return
    if not commits_each():
        execute(f"CREATE {kind} {index} ON {table} {definition}")
        return
    execute("SET lock_timeout = 0")  # one that runs out would leave an index that is invalid
    leftover = sa.text(
        "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:index) AND indrelid = to_regclass(:table)"
        " AND NOT indisvalid"
    ).bindparams(index=beside(table, index), table=table)
    if not op.get_context().as_sql and op.get_bind().scalar(leftover):
        execute(f"DROP INDEX CONCURRENTLY {beside(table, index)}")
    execute(f"CREATE {kind} CONCURRENTLY {index} ON {table} {definition}")


def beside(table: str, name: str) -> str:
    """Return the name of an index with the schema of its table."""
    schema, dot, _ = table.rpartition(".")
    return f"{schema}{dot}{name}"


def valid_indexes(table: str, schema: str | None) -> set[str]:
    """Return the names of the indexes of a table, without those that were cut off while they were made."""
    if op.get_context().as_sql:
        return set()
    bind = op.get_bind()
    names = {str(index["name"]) for index in sa.inspect(bind).get_indexes(table, schema=schema)}
    if dialect() != "postgresql":
        return names
    invalid = sa.text(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisvalid"
        " AND i.indrelid = to_regclass(:table)"
    )
    return names - set(bind.scalars(invalid, {"table": placed_in(table, schema)}))


class Filling(NamedTuple):
    """An UPDATE that may be repeated: it leaves alone what it has changed already."""

    sets: str
    condition: str


def in_batches(table: str, key: str, fillings: list[Filling], *, title: str) -> None:
    """Fill a few rows at a time, by the primary key, each time committed by itself.

    Rows that others have locked are left out and filled later: to wait for one would make others wait for the rest.

    Args:
        table: as it is written in SQL.
        key: the column of the primary key, an integer.
        fillings: the UPDATEs.
        title: for the lines that tell how far it is.
    """
    if op.get_context().as_sql or not commits_each():
        for sets, condition in fillings:
            execute(f"UPDATE {table} SET {sets} WHERE ({condition})")  # noqa: S608
        return
    left = " OR ".join(f"({condition})" for _, condition in fillings)
    bounds = f"SELECT min({key}), max({key}) FROM {table} WHERE {left}"  # noqa: S608

    def fill_what_is_left(_attempt: int = 1) -> None:
        first, last = query(bounds)[0]
        if first is not None:
            fill_between(first - 1, last, table, key, fillings, title=title)

    def fill_or_wait(attempt: int) -> None:
        fill_what_is_left(attempt)
        if query(bounds)[0][0] is not None:
            raise RowsAreLocked

    fill_what_is_left()  # which may take long, so that it does not count as waiting
    keep_asking(fill_or_wait, table)


class RowsAreLocked(Exception):
    """Some rows could not be filled yet."""


def fill_between(seen: int, last: int, table: str, key: str, fillings: list[Filling], *, title: str) -> None:
    """Fill the rows after one key and up to another, as far as nobody has locked them."""
    most = option("batch")
    first, size, changed, said = seen, most, 0, time.monotonic()
    while seen < last:
        page = f"SELECT {key} FROM {table} WHERE {key} > {seen} ORDER BY {key} LIMIT {size}"  # noqa: S608
        ((upto,),) = query(f"SELECT max({key}) FROM ({page}) page")  # noqa: S608
        if upto is None:
            return
        began = time.monotonic()
        for filling in fillings:
            changed += fill_batch(table, key, filling, f"{key} > {seen} AND {key} <= {upto}")
        seen, took = upto, time.monotonic() - began
        size = min(most, max(50, size // 2) if took > 0.2 else size * 2)  # noqa: PLR2004
        if time.monotonic() - said > 2:  # noqa: PLR2004
            said = time.monotonic()
            log.info("contenthub: %s: %d changes, %d %%", title, changed, 100 * (seen - first) // (last - first))
        time.sleep(option("pause") / 1000)


def fill_batch(table: str, key: str, filling: Filling, between: str) -> int:
    """Fill the rows between two keys that are free, in one transaction, and return their number."""
    rows = f"SELECT {key} FROM {table} WHERE ({filling.condition}) AND {between}"  # noqa: S608
    lock = "FOR NO KEY UPDATE" if dialect() == "postgresql" else "FOR UPDATE"
    execute("BEGIN")
    try:
        execute(f"SET LOCAL {lock_timeout()[4:]}" if dialect() == "postgresql" else MYSQL_WAITS_BRIEFLY)
        found = query(f"{rows} {lock}{' SKIP LOCKED' if skips_locked() else ''}")
        if found:
            ids = ", ".join(str(row[0]) for row in found)
            execute(f"UPDATE {table} SET {filling.sets} WHERE {key} IN ({ids})")  # noqa: S608
        execute("COMMIT")
    except BaseException as error:
        with suppress(sa.exc.DBAPIError):
            execute("ROLLBACK")
        if isinstance(error, sa.exc.DBAPIError) and must_wait(error):
            return 0  # it is filled later
        raise
    return len(found)


def skips_locked() -> bool:
    """Tell whether the database can leave out rows that are locked."""
    here = op.get_context().dialect
    first = (10, 6) if getattr(here, "is_mariadb", False) else (8, 0, 1)
    return dialect() == "postgresql" or (here.server_version_info or ()) >= first


def query(statement: str) -> list[Any]:
    """Return the rows of SQL as it is written."""
    return list(op.get_bind().exec_driver_sql(escaped(statement)).all())


def read_view(view: str, fields: Iterable[str], schema: str | None) -> list[tuple[Any, ...]]:
    """Return the rows of a view of constants; none if there is no such view."""
    if op.get_context().as_sql or view not in sa.inspect(op.get_bind()).get_view_names(schema=schema):
        return []
    columns: list[sa.ColumnElement[Any]] = [sa.column(field) for field in fields]
    return [tuple(row) for row in op.get_bind().execute(sa.select(*columns).select_from(sa.table(view, schema=schema)))]


def write_view(view: str, entries: Sequence[Any], schema: str | None) -> None:
    """Make a view of constants, which is there all the time, or drop it if there is nothing to keep.

    Args:
        view: its name.
        entries: named tuples of texts.
        schema: the schema.
    """
    rows = [
        sa.select(*(sa.literal(value, sa.String).label(field) for field, value in entry._asdict().items()))
        for entry in entries
    ]
    if not rows or dialect() == "sqlite":
        execute(f"DROP VIEW IF EXISTS {placed_in(view, schema)}")
    if rows:
        constants = sa.union_all(*rows).compile(
            dialect=op.get_context().dialect, compile_kwargs={"literal_binds": True}
        )
        create = "CREATE VIEW" if dialect() == "sqlite" else "CREATE OR REPLACE VIEW"
        execute(f"{create} {placed_in(view, schema)} AS {constants}")


def x_arguments() -> dict[str, str]:
    """Return the values of all `-x contenthub_NAME=...`, by name."""
    environment = op.get_context().environment_context
    said = [] if environment is None else environment.get_x_argument()
    parts = (argument.partition("=") for argument in said if argument.startswith("contenthub_"))
    return {argument.removeprefix("contenthub_").strip(): value.strip() for argument, _, value in parts}


def check_options() -> None:
    """Refuse what is not understood on the command line and in the environment, before anything is done."""
    known = ("tasks", *OPTIONS)
    if unknown := sorted(x_arguments().keys() - {*known}):
        names = ", ".join(f"contenthub_{each}" for each in known)
        raise CommandError(f"-x contenthub_{unknown[0]} is not known here. Nothing was changed. There are: {names}.")
    for each in OPTIONS:
        option(each)


def option(name: str) -> int:
    """Return an option of the command line or the environment."""
    default, least = OPTIONS[name]
    variable, said = f"CONTENTHUB_{name.upper()}", x_arguments().get(name)
    where, value = (variable, os.environ.get(variable) or str(default))
    if said is not None:
        where, value = f"-x contenthub_{name}", said
    digits = len(str(LARGEST_OPTION))
    if not (value.isascii() and value.isdigit() and len(value) <= digits and least <= int(value) <= LARGEST_OPTION):
        unit = "rows" if name == "batch" else "milliseconds"
        raise CommandError(
            f"{where} is {value!r}, and not a number of {unit} from {least} to {LARGEST_OPTION}. Nothing was changed."
        )
    return int(value)


def dialect() -> str:
    """Return the kind of database; MariaDB is a MySQL."""
    found: str = op.get_context().dialect.name
    return "mysql" if found in MYSQL else found


def quote(identifier: str) -> str:
    """Return a name as it is written in SQL."""
    return op.get_context().dialect.identifier_preparer.quote(identifier)


def placed_in(table: str, schema: str | None) -> str:
    """Return the quoted name of a table or view, with its schema."""
    return quote(table) if schema is None else f"{quote(schema)}.{quote(table)}"


# --- end of the engine ---
