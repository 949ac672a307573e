"""The history pages, as the tests of them visit them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import KINDS
from tests.support.host import Host, make_host
from tests.support.pages import Visitor, open_to_all, start_anew


@pytest.fixture(scope="module", params=KINDS)
def pages_host(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> Iterator[Host]:
    """An application with the history pages, open to everybody; the tests of a module share it."""
    host = make_host(new_database(request.param), after=open_to_all, WEBHOOK_CALLBACK_BASE_URL="https://hub.example")
    yield host
    host.close()


@pytest.fixture
def visitor(pages_host: Host) -> Visitor:
    """A visitor of the history pages on each kind of database, over empty tables."""
    start_anew(pages_host)
    return Visitor(pages_host)


@pytest.fixture
def sqlite_visitor(hosts: Callable[..., Host], sqlite_url: str) -> Visitor:
    """The same, where the kind of database does not matter."""
    return Visitor(hosts(sqlite_url, after=open_to_all, WEBHOOK_CALLBACK_BASE_URL="https://hub.example"))
