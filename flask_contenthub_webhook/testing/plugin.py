"""The pytest plugin: fixtures for hosts that test their handlers. It comes with the package, nothing to switch on.

The fixtures work on the host's own fixture ``app``, its Flask application with the extension registered and the tables
made, as pytest-flask names it too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from ..tasks.reconcile import ReconcileReport
    from .callbacks import CallbackSender
    from .clock import MovableClock
    from .conformance import Difference
    from .live import LiveApp
    from .recorder import SignalRecorder
    from .simulator import CreatorSimulator

# Everything is imported where it is used: pytest loads plugins before coverage begins to measure.


@pytest.fixture
def webhook_callback(app: Flask) -> CallbackSender:
    """Post signed callbacks to the app: ``webhook_callback.completed(task, {"content": "..."})``."""
    from .callbacks import CallbackSender

    return CallbackSender(app)


@pytest.fixture
def webhook_signals(app: Flask) -> Iterator[SignalRecorder]:
    """Record the signals that the app sends: ``webhook_signals.names == ["task_completed", ...]``."""
    from .recorder import SignalRecorder

    with SignalRecorder(app) as recorder:
        yield recorder


@pytest.fixture
def webhook_clock(app: Flask) -> Iterator[MovableClock]:
    """Stop the app's clock until a test moves it: ``webhook_clock.advance(minutes=30)``."""
    from .clock import MovableClock

    clock = MovableClock(app)
    yield clock
    clock.restore()


@pytest.fixture
def webhook_pass(app: Flask) -> Callable[[], ReconcileReport]:
    """Run once what the scheduler would run: submissions, reconciliation, retries of failed deliveries."""
    from ..engine.retry import retry_due_deliveries
    from ..runtime.state import get_state
    from ..tasks.handover import submit_due
    from ..tasks.reconcile import reconcile

    def run() -> ReconcileReport:
        state = get_state(app)
        submit_due(state)
        report = reconcile(state)
        retry_due_deliveries(state)
        return report

    return run


@pytest.fixture
def webhook_conformance() -> Callable[..., list[Difference]]:
    """Send right and wrong signatures to any receiver: ``webhook_conformance(post, url, secret) == []``.

    ``post(url, body, headers)`` returns the HTTP status; ``families=["standard"]`` sends vectors of one scheme alone.
    """
    from .conformance import FAMILIES, Post, check_receiver, make_vectors

    def check(post: Post, url: str, secret: str, *, families: Collection[str] = FAMILIES) -> list[Difference]:
        return list(check_receiver(post, url, make_vectors(secret, url=url, families=families)))

    return check


@pytest.fixture
def webhook_live_app(app: Flask) -> Iterator[LiveApp]:
    """Serve the app on a real port of loopback, which is also its callback base URL."""
    from .live import LiveApp

    with LiveApp(app) as live:
        yield live


@pytest.fixture
def creator_simulator(app: Flask) -> Iterator[CreatorSimulator]:
    """Run a creator on loopback that the app submits to; with ``webhook_live_app`` it also calls back.

    Nothing is handed over in the background: call ``webhook_pass()`` when the test wants it.
    """
    from ..creators import HttpCreator
    from ..runtime.background import BackgroundThreads
    from ..runtime.state import get_state
    from .simulator import CreatorSimulator

    state = get_state(app)
    before = state.creator, state.submit_threads
    with CreatorSimulator(time_scale=0.02, work_time=(0.0, 0.02)) as simulator:
        creator = HttpCreator(simulator.base_url)
        state.creator, state.submit_threads = creator, BackgroundThreads(threads=0)
        yield simulator
        state.creator, state.submit_threads = before
        creator.close()
