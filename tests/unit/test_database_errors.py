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

from flask_contenthub_webhook.storage.database_errors import Trouble, is_connection_useless, trouble_of
from flask_contenthub_webhook.storage.drivers import error_code
from tests.support.database_drivers import POSTGRES_DRIVERS, through
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


@pytest.mark.parametrize(
    ("error", "number", "trouble"),
    [
        (pymysql.err.OperationalError(1213, "Deadlock found"), 1213, Trouble.RETRY),
        (pymysql.err.OperationalError(1205, "Lock wait timeout"), 1205, Trouble.BUSY),
        (pymysql.err.OperationalError(3024, "Query execution was interrupted"), 3024, Trouble.BUSY),
        (pymysql.err.OperationalError(1969, "max_statement_time exceeded"), 1969, Trouble.BUSY),
        (pymysql.err.OperationalError(1290, "--read-only"), 1290, Trouble.UNAVAILABLE),
        (pymysql.err.OperationalError(2003, "Can't connect"), 2003, Trouble.UNAVAILABLE),
        (pymysql.err.ProgrammingError(1064, "syntax"), 1064, Trouble.STATEMENT),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), 1062, Trouble.STATEMENT),
    ],
)
def test_an_error_of_mysql_is_told_by_its_number(error: Exception, number: int, trouble: Trouble):
    made = wrapped(error, pymysql.err.Error)

    assert error_code(error) == number
    assert trouble_of(made) is trouble
    assert is_connection_useless(made) is (number == 1290)


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
