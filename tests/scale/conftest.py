"""Host applications that are taken down after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.host import Host, make_host


@pytest.fixture
def hosts() -> Iterator[Callable[..., Host]]:
    """A function that takes the arguments of `make_host`."""
    made: list[Host] = []

    def build(database_url: str, **config: Any) -> Host:
        made.append(make_host(database_url, **config))
        return made[-1]

    yield build
    for host in made:
        host.close()


@pytest.fixture
def host(hosts: Callable[..., Host], database_url: str) -> Host:
    """The default host application, on each kind of database."""
    return hosts(database_url)


@pytest.fixture
def sqlite_host(hosts: Callable[..., Host], sqlite_url: str) -> Host:
    """The default host application, where the kind of database does not matter."""
    return hosts(sqlite_url)


@pytest.fixture
def postgres_host(hosts: Callable[..., Host], postgres_url: str) -> Host:
    """The default host application on PostgreSQL, for what needs several connections at once."""
    return hosts(postgres_url)
