"""The database URL, and the settings of the connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event

BUSY_TIMEOUT = 5
"""Seconds to wait for a lock; content-creator hangs up after 10, and should get its answer by then."""

DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""Where a URL names none; both come with the demo."""

SQLITE_PRAGMAS = (
    "PRAGMA journal_mode = WAL",  # readers and the writer do not wait for each other
    # The sender never repeats what we acknowledged. In WAL mode, NORMAL may lose the last commits in a power failure;
    # FULL writes every commit to the disk before the answer is sent.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


def database_uri(environ: Mapping[str, str]) -> str:
    """Return DATABASE_URL in the form SQLAlchemy wants, or an SQLite file in the instance folder if it is not set."""
    url = environ.get("DATABASE_URL") or "sqlite:///contenthub.db"
    scheme, _, rest = url.partition("://")
    return f"{DRIVERS[scheme]}://{rest}" if scheme in DRIVERS else url


def engine_options(uri: str) -> dict[str, Any]:
    """Return the arguments of `create_engine` besides the URL."""
    if uri.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_TIMEOUT}}
    return {"pool_pre_ping": True}  # no request fails because the database was restarted


def tune_sqlite(app: Flask, db: SQLAlchemy) -> None:
    """Set the pragmas on every new connection."""
    with app.app_context():
        engine = db.engine
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)


def _set_pragmas(connection: Any, _record: Any) -> None:
    for pragma in SQLITE_PRAGMAS:
        connection.execute(pragma)
