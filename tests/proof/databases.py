"""Databases of the proof's own: servers that nobody else uses, and quick to break a deadlock."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer

__all__ = ["database"]


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Open an empty database and yield its URL.

    Args:
        kind: ``sqlite``, ``postgresql``, ``mariadb``, or ``mariadb repeatable read``: with a binary log of statements,
            for which the extension leaves a session the server's own isolation.
    """
    match kind:
        case "sqlite":
            with tempfile.TemporaryDirectory(prefix="proof-") as folder:
                yield f"sqlite:///{Path(folder) / 'proof.db'}"
        case "postgresql":
            with PostgresServer(settings={"deadlock_timeout": "10ms", "autovacuum": "off"}) as server:
                yield server.create_database()
        case "mariadb":
            with MariaDBServer() as server:
                yield server.create_database()
        case "mariadb repeatable read":
            with MariaDBServer(settings={"log-bin": "binlog", "binlog-format": "STATEMENT"}) as server:
                yield server.create_database()
        case _:
            raise ValueError(f"{kind!r} is not a kind of database")
