"""`web_host` in a gunicorn, on a database that is ready."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .gunicorn import Gunicorn
from .raw_http import Answer, callback, post, send
from .web_database import HostDatabase
from .web_host import FACTORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class WebServer:
    """A running host.

    Args:
        gunicorn: The server.
        database: What it works on.
        switch: The file that says what its handlers do.
    """

    gunicorn: Gunicorn
    database: HostDatabase
    switch: Path

    @property
    def port(self) -> int:
        return self.gunicorn.port

    def send(self, request: Any, **options: Any) -> Answer:
        return send(self.port, request, **options)

    def post(
        self, task_id: str, body: bytes, *, query: str = "", headers: Mapping[str, str | bytes | None] | None = None
    ) -> Answer:
        """Post a callback to a task's path."""
        return self.send(post(callback(task_id, query), body, headers))

    def peak_memory(self) -> dict[int, int]:
        """The most bytes that each worker has had in memory."""
        return {pid: _peak(pid) for pid in self.gunicorn.worker_pids()}


@contextlib.contextmanager
def serve(
    url: str, directory: Path, *, factory: str = FACTORY, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[WebServer]:
    """Make the tables, start the server, and stop it afterwards.

    Args:
        url: The SQLAlchemy URL of an empty database.
        directory: Where the switch file may be.
        factory: Another application over `web_host`.
        env: More environment variables.
        options: Of `Gunicorn`.
    """
    switch = directory / "switch"
    environment = {"DATABASE_URL": url, "TEST_HOST_SWITCH": str(switch), **(env or {})}
    database = HostDatabase(url).create()
    with Gunicorn(factory, env=environment, **options) as gunicorn:
        try:
            yield WebServer(gunicorn, database, switch)
        finally:
            print(f"--- gunicorn log of {gunicorn.base_url}\n{gunicorn.log[-20_000:]}")  # noqa: T201 - shown on failure


def figure(text: str) -> None:
    """A measured figure, for whoever runs the tests with ``-rP``."""
    print(text)  # noqa: T201 - captured


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
