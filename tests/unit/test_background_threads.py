"""Background work right after a commit, and where threads cannot run."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from flask_contenthub_webhook.runtime.background import BackgroundThreads


@pytest.fixture
def uwsgi_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that uWSGI makes, as far as it says whether threads run."""
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(has_threads=False))


def test_work_runs_in_a_thread():
    ran: list[str] = []
    done = threading.Event()

    def work() -> None:
        ran.append(threading.current_thread().name)
        done.set()

    BackgroundThreads(1).submit(work)

    assert done.wait(60)
    assert ran != [threading.current_thread().name]


def test_uwsgi_without_threads_starts_none_and_leaves_the_work_to_the_sweep(uwsgi_without_threads):
    before = threading.active_count()
    ran: list[bool] = []

    BackgroundThreads(1).submit(ran.append, True)

    assert threading.active_count() == before
    assert ran == []


def test_uwsgi_without_threads_does_at_once_what_no_sweep_does(uwsgi_without_threads):
    ran: list[bool] = []

    BackgroundThreads(1).submit_or_run(ran.append, True)

    assert ran == [True]
