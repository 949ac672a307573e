"""The servers, databases and host applications that tests ask for by name."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.counts import CountsByDatabase
from tests.support.databases import FIXTURES, KINDS, VARIANTS
from tests.support.gunicorn import Gunicorn
from tests.support.host import Host, make_host
from tests.support.mariadb import NO_MARIADB, PROGRAM, MariaDBServer
from tests.support.postgres import PostgresServer
from tests.support.processes import HOST_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DatabaseServer = PostgresServer | MariaDBServer


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    """Enable loggers that an earlier test disabled: Alembic's ``fileConfig`` does so, and parts of the proof."""
    logging.disable(logging.NOTSET)
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith("flask_contenthub_webhook"):
            logger.disabled = False


_MEMORY = Path("/dev/shm")
_ROOM = 2 * 1024**3
"""Bytes that must be free there: a PostgreSQL and the databases of the running tests, for each worker."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the run independent of the developer's own environment."""
    config.pluginmanager.register(CountsByDatabase())
    for name in [name for name in os.environ if name.startswith(HOST_VARIABLES)]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs like this, and what they start inherits it: no Ctrl-C would end a server.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("COLUMNS", "LINES"):  # a parallel run sets them for its workers
        os.environ.pop(name, None)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    if "TMPDIR" not in os.environ and _memory_is_fit():
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many workers again as processors: a good part of the suite waits for processes, locks and pollers."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + (processors + 1) // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests: what a parallel run begins last should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _memory_is_fit() -> bool:
    """Whether temporary files may go there, where no database waits for a disk.

    What a test kills are processes, and these leave the same files behind as on a disk. A TMPDIR of your own wins.
    """
    if not os.access(_MEMORY, os.W_OK | os.X_OK):
        return False
    has_programs = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC  # some tests write programs
    return has_programs and shutil.disk_usage(_MEMORY).free > _ROOM


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run, started when the first test asks for it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database made for this test."""
    postgres.start()  # a test that failed in the middle of an outage must not spoil this one
    url = postgres.create_database()
    yield url
    postgres.start()
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    """One MariaDB for the whole run, started when the first test asks for it; skips where none is installed."""
    if PROGRAM is None:
        pytest.skip(NO_MARIADB)
    with MariaDBServer() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariaDBServer) -> Iterator[str]:
    """The URL of a MariaDB database made for this test."""
    mariadb.start()  # a test that failed in the middle of an outage must not spoil this one
    url = mariadb.create_database()
    yield url
    mariadb.start()
    mariadb.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite database file made for this test."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database: the test runs once on each kind."""
    url: str = request.getfixturevalue(FIXTURES[request.param])
    return url


@pytest.fixture(scope="session")
def server_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], DatabaseServer]]:
    """A function that gives the running server of a kind, of which there is one for the whole run."""
    variants: dict[str, MariaDBServer] = {}

    def get(kind: str) -> DatabaseServer:
        if kind in VARIANTS:
            if PROGRAM is None:
                pytest.skip(NO_MARIADB)
            if kind not in variants:
                variants[kind] = MariaDBServer(settings=VARIANTS[kind])
            server: DatabaseServer = variants[kind]
        else:
            server = request.getfixturevalue({"postgresql": "postgres", "mariadb": "mariadb"}[kind])
        return server.start()

    yield get
    for server in variants.values():
        server.close()


@pytest.fixture(scope="session")
def new_database(
    server_of: Callable[[str], DatabaseServer], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """A function that makes an empty database of a kind, for what the tests of a module share."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database') / 'test.db'}"
        return server_of(kind).create_database()

    return make


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database of a server: the test runs once on each kind, for what needs several connections."""
    url: str = request.getfixturevalue(request.param)
    return url


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
def server_host(hosts: Callable[..., Host], server_url: str) -> Host:
    """The default host application on each kind of server, for what needs several connections at once."""
    return hosts(server_url)


@pytest.fixture
def postgres_host(hosts: Callable[..., Host], postgres_url: str) -> Host:
    """The default host application on PostgreSQL, for what it alone has."""
    return hosts(postgres_url)


@pytest.fixture
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Callable[..., Gunicorn]]:
    """A function that takes the arguments of `Gunicorn`, starts it, and has it stopped after the test.

    The logs are shown when the test fails.
    """
    servers: list[Gunicorn] = []

    def serve(app: str, **options: Any) -> Gunicorn:
        server = Gunicorn(app, **options)
        servers.append(server)
        return server.start()

    yield serve
    for server in reversed(servers):
        server.stop()
        print(f"--- gunicorn log of {server.base_url}\n{server.log}")  # noqa: T201 - captured, shown on failure
        server.close()
