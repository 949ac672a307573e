"""The HTTP creator, and loopback servers that answer, and die, as the real one was captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_contenthub_webhook.creators import HttpCreator
from tests.support.creator_server import CreatorServer, Reply, Seen
from tests.support.http_creator import NOW, Connect, Serve


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[CreatorServer] = []

    def start(answer: Callable[[Seen], Reply] | Reply) -> CreatorServer:
        answering = (lambda _: answer) if isinstance(answer, Reply) else answer
        servers.append(CreatorServer(answering).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    creators: list[HttpCreator] = []

    def make(server: CreatorServer, **options: Any) -> HttpCreator:
        options = {"timeout": 5.0, "clock": lambda: NOW, **options}
        creators.append(HttpCreator(server.url, **options))
        return creators[-1]

    yield make
    for creator in creators:
        creator.close()
