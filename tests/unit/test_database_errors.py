"""The meaning of a database error, from what each driver that we name really raises."""

from __future__ import annotations

import sqlite3
from typing import Any

import pg8000.dbapi
import psycopg
import psycopg2.errors
import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from flask_contenthub_webhook.storage.database_errors import (
    Trouble,
    is_connection_useless,
    is_contention,
    row_refusal,
    trouble_of,
)
from flask_contenthub_webhook.storage.drivers import error_code
from tests.support.database_drivers import (
    MARIADB_DRIVERS,
    MYSQL_CONNECTOR,
    POSTGRES_DRIVERS,
    through,
    through_mysql,
)
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer

SQLSTATES = {
    "40001": Trouble.RETRY,
    "40P01": Trouble.RETRY,
    "55P03": Trouble.BUSY,
    "57014": Trouble.BUSY,
    "57P01": Trouble.RETRY,
    "25006": Trouble.UNAVAILABLE,
    "53100": Trouble.UNAVAILABLE,  # disk full
    "08006": Trouble.UNAVAILABLE,
    "XX000": Trouble.UNAVAILABLE,
    "28P01": Trouble.UNAVAILABLE,  # the password was changed
    "3D000": Trouble.UNAVAILABLE,  # the database is not there, as while it is restored
    "0A000": Trouble.STATEMENT,  # a cached plan must not change its result type
    "U0001": Trouble.STATEMENT,  # one of the database's own, of a trigger
    "42601": Trouble.STATEMENT,  # syntax
    "23505": Trouble.STATEMENT,  # unique
    "22001": Trouble.STATEMENT,  # too long
    "P0001": Trouble.STATEMENT,  # RAISE in a trigger
}


def wrapped(driver_error: Exception, base: type[Exception]) -> exc.SQLAlchemyError:
    made = exc.DBAPIError.instance("SELECT 1", None, driver_error, base)
    assert isinstance(made, exc.SQLAlchemyError)
    return made


@pytest.fixture(scope="module")
def connections(postgres: PostgresServer) -> Any:
    """A connection through each driver."""
    url = postgres.create_database()
    engines = {driver: sa.create_engine(through(url, driver)) for driver in POSTGRES_DRIVERS}
    connections = {driver: engine.connect() for driver, engine in engines.items()}
    yield connections
    for driver, engine in engines.items():
        connections[driver].close()
        engine.dispose()


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
@pytest.mark.parametrize("code", SQLSTATES)
def test_an_error_of_postgresql_means_the_same_through_each_driver(connections: Any, driver: str, code: str):
    connection = connections[driver]
    try:
        with pytest.raises(exc.DBAPIError) as caught:
            connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{code}'; END $$")
    finally:
        connection.rollback()

    assert error_code(caught.value.orig) == code
    assert trouble_of(caught.value) is SQLSTATES[code]
    assert is_connection_useless(caught.value) is (code in {"57P01", "25006"})
    assert (row_refusal(caught.value) is not None) is (code in {"23505", "22001", "P0001", "U0001"})


NUMBERS = {
    1213: Trouble.RETRY,  # deadlock
    1020: Trouble.RETRY,  # changed since it was read
    1205: Trouble.BUSY,  # lock wait timeout
    1969: Trouble.BUSY,  # max_statement_time
    1317: Trouble.BUSY,  # KILL QUERY
    1290: Trouble.UNAVAILABLE,  # --read-only
    1040: Trouble.UNAVAILABLE,  # too many connections
    1114: Trouble.UNAVAILABLE,  # the disk is full
    1135: Trouble.UNAVAILABLE,  # no thread
    1637: Trouble.UNAVAILABLE,  # too many transactions
    1235: Trouble.STATEMENT,  # not supported
    1062: Trouble.STATEMENT,  # unique
    1366: Trouble.STATEMENT,  # outside the character set
    1406: Trouble.STATEMENT,  # too long
    1644: Trouble.STATEMENT,  # SIGNAL in a trigger
    4025: Trouble.STATEMENT,  # CHECK
    1146: Trouble.STATEMENT,  # no such table
    1054: Trouble.STATEMENT,  # no such column
}


@pytest.fixture(scope="module", params=[*MARIADB_DRIVERS, MYSQL_CONNECTOR])
def mariadb_connection(request: pytest.FixtureRequest, mariadb: MariaDBServer) -> Any:
    url = mariadb.create_database()
    engine = sa.create_engine(through_mysql(url, request.param))
    with engine.connect() as connection:
        yield connection
    engine.dispose()
    mariadb.drop_database(url)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_of_mariadb_means_the_same_through_each_driver(mariadb_connection: Any, number: int):
    with pytest.raises(exc.DBAPIError) as caught:
        mariadb_connection.exec_driver_sql(
            f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'made up'"
        )
    mariadb_connection.rollback()

    assert error_code(caught.value.orig) == number
    assert trouble_of(caught.value) is NUMBERS[number]
    assert is_contention(caught.value) is (number in {1213, 1020, 1205, 1969, 1317})
    assert is_connection_useless(caught.value) is (number == 1290)
    assert (row_refusal(caught.value) is not None) is (number in {1062, 1366, 1406, 1644, 4025})


@pytest.mark.parametrize("mariadb_connection", MARIADB_DRIVERS, indirect=True)
def test_a_killed_connection_of_mariadb_is_a_lost_one(mariadb_connection: Any, mariadb: MariaDBServer):
    number = mariadb_connection.exec_driver_sql("SELECT connection_id()").scalar_one()
    mariadb.execute(f"KILL {number}")
    with pytest.raises(exc.DBAPIError) as caught:
        [mariadb_connection.exec_driver_sql("SELECT 1").all() for _ in range(2)]  # it may answer once more
    mariadb_connection.rollback()

    assert trouble_of(caught.value) is Trouble.RETRY
    assert not is_contention(caught.value)


@pytest.mark.parametrize(
    ("error", "number", "trouble"),
    [
        (pymysql.err.OperationalError(2006, "gone away"), 2006, Trouble.RETRY),
        (pymysql.err.OperationalError(2013, "lost"), 2013, Trouble.RETRY),
        (pymysql.err.OperationalError(2055, "lost, with a system error"), 2055, Trouble.RETRY),
        (pymysql.err.OperationalError(1927, "killed"), 1927, Trouble.RETRY),
        (pymysql.err.OperationalError(1153, "packet"), 1153, Trouble.STATEMENT),
        (pymysql.err.OperationalError(3572, "NOWAIT"), 3572, Trouble.BUSY),
        (pymysql.err.OperationalError(3024, "Query execution was interrupted"), 3024, Trouble.BUSY),
        (pymysql.err.OperationalError(1290, "--read-only"), 1290, Trouble.UNAVAILABLE),
        (pymysql.err.OperationalError(2003, "Can't connect"), 2003, Trouble.UNAVAILABLE),
        (pymysql.err.OperationalError(4151, "Access denied, this account is locked"), 4151, Trouble.UNAVAILABLE),
        (pymysql.err.ProgrammingError(1064, "syntax"), 1064, Trouble.STATEMENT),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), 1062, Trouble.STATEMENT),
    ],
)
def test_an_error_of_mysql_is_told_by_its_number(error: Exception, number: int, trouble: Trouble):
    made = wrapped(error, pymysql.err.Error)

    assert error_code(error) == number
    assert trouble_of(made) is trouble
    assert is_connection_useless(made) is (number in {1290, 2006, 2013, 2055, 1927})


def test_an_error_of_sqlite_is_told_by_its_name(tmp_path: Any):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}", connect_args={"timeout": 0.01})
    with engine.connect() as connection, pytest.raises(exc.OperationalError) as caught:
        connection.exec_driver_sql("SELECT * FROM no_such_table")
    assert (error_code(caught.value.orig), trouble_of(caught.value)) == ("SQLITE_ERROR", Trouble.STATEMENT)

    with sqlite3.connect(tmp_path / "a.db") as holder:
        holder.execute("BEGIN IMMEDIATE")
        with engine.connect() as connection, pytest.raises(exc.OperationalError) as caught:
            connection.exec_driver_sql("CREATE TABLE a (b)")
    assert (error_code(caught.value.orig), trouble_of(caught.value)) == ("SQLITE_BUSY", Trouble.BUSY)
    holder.close()
    engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection failed"),
        psycopg2.OperationalError("could not connect"),
        pg8000.dbapi.InterfaceError("Can't create a connection"),
        pymysql.err.InterfaceError(0, ""),
        pg8000.dbapi.InterfaceError({"M": "no code"}),
    ],
    ids=repr,
)
def test_an_error_without_a_known_code_is_about_the_connection(error: Exception):
    base = next(kind for kind in type(error).__mro__ if kind.__name__ == "Error")
    assert trouble_of(wrapped(error, base)) is Trouble.UNAVAILABLE
