"""The databases on which the tests of a file run, where these are more than `database_url` of `conftest.py` gives."""

from __future__ import annotations

import pytest

_FIXTURES = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mariadb": "mariadb_url"}


@pytest.fixture(params=list(_FIXTURES))
def on_all_three(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database of SQLite, PostgreSQL and MariaDB, in turn.

    A file says ``database_url = on_all_three``; that goes for its hosts, too.
    """
    url: str = request.getfixturevalue(_FIXTURES[request.param])
    return url
