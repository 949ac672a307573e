"""Hosts that submit to a creator of the tests, or to a simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.host import Host
from tests.support.submission import BASE, with_own_creator

Build = Callable[..., Host]


@pytest.fixture
def hub(hosts: Build, database_url: str) -> Host:
    """Nothing is handed over in the background; the creator is our own."""
    return with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))


@pytest.fixture
def sqlite_hub(hosts: Build, sqlite_url: str) -> Host:
    """The same, where the kind of database does not matter."""
    return with_own_creator(hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))


@pytest.fixture
def simulators() -> Iterator[Callable[..., tuple[CreatorSimulator, HttpCreator]]]:
    """A function that starts a simulator on a host's clock and makes it the host's creator."""
    running: list[tuple[CreatorSimulator, HttpCreator]] = []

    def start(host: Host, **options: Any) -> tuple[CreatorSimulator, HttpCreator]:
        defaults: dict[str, Any] = {"time_scale": 0.02, "restart_after": None, "clock": host.clock}
        simulator = CreatorSimulator(**{**defaults, **options}).start()
        creator = HttpCreator(simulator.base_url, timeout=5, clock=host.clock)
        running.append((simulator, creator))
        host.state.creator = creator
        return simulator, creator

    yield start
    for simulator, creator in running:
        creator.close()
        simulator.stop()
