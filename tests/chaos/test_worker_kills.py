"""Workers that are killed, stopped, cut off and deceived: what was acknowledged has its effect, and has it once.

``WORKER_CALLBACKS`` says how many callbacks.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import SERVERS
from tests.support.web_server import figure
from tests.support.workers import Site, site, size

CALLBACKS = size("WORKER_CALLBACKS", 120)
HOUR = 3600
LEASE = {"WEBHOOK_TIMEOUT": "0.5"}
"""A lease of three seconds, since nobody here wants to wait for a minute."""


@pytest.fixture
def at_work(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """Callbacks that were acknowledged, and a worker in the middle of them."""
    with site(database_url, tmp_path, **LEASE) as made:
        begin(made)
        yield made


def begin(made: Site) -> None:
    made.switch.write_text("sleep 0.004")
    tasks = made.database.add_tasks(CALLBACKS)
    assert made.complete(tasks) == tasks
    made.start()
    made.wait(lambda: made.effects() > CALLBACKS // 4, "the worker does nothing")


def assert_each_has_one_effect(made: Site) -> None:
    made.wait_until_done()
    contents = made.contents()
    assert len({row.task_id for row in contents}) == len(contents) == CALLBACKS
    assert {row.verdict for row in made.deliveries()} == {"processed"}


def test_kill_9(at_work: Site) -> None:
    (worker,) = at_work.workers
    assert worker.end(signal.SIGKILL) == -9
    left, leased = at_work.waiting(), at_work.leased()
    assert left
    worker.start()
    assert_each_has_one_effect(at_work)
    tried_again = sum(row.tries > 1 for row in at_work.deliveries())
    figure(f"killed with {left} of {CALLBACKS} left, {leased} of them in hand; {tried_again} were tried again")


def test_sigterm(at_work: Site) -> None:
    (worker,) = at_work.workers
    assert worker.end(signal.SIGTERM) == 0
    assert "Stopped." in worker.log
    left = at_work.waiting()
    assert left
    assert at_work.leased() == 0, "what was not begun must be given back"
    assert at_work.effects() == CALLBACKS - left
    worker.start()
    assert_each_has_one_effect(at_work)
    assert {row.tries for row in at_work.deliveries()} == {1}
    figure(f"stopped with {left} of {CALLBACKS} left")


@pytest.mark.parametrize("kind", SERVERS)
def test_a_restart_of_the_database(server_of: Callable[[str], Any], kind: str, tmp_path: Path) -> None:
    server = server_of(kind)
    with site(server.create_database(), tmp_path, **LEASE) as made:
        begin(made)
        with server.outage():
            pass
        assert made.waiting()
        assert_each_has_one_effect(made)
        assert made.workers[0].is_running

        if kind == "postgresql":  # it is woken again, too: by the connection that it made anew
            made.wait(lambda: listeners(made) == 1, "nobody listens any more")


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_clock_that_jumps(at_work: Site, offset: int) -> None:
    at_work.clock_offset.write_text(str(offset))
    assert_each_has_one_effect(at_work)


def test_a_lease_that_ends_while_its_worker_still_works(database_url: str, tmp_path: Path) -> None:
    with site(database_url, tmp_path, WEBHOOK_TIMEOUT="0.1", TEST_HOST_BUSY_TIMEOUT="0.5") as made:
        made.switch.write_text("sleep 1.5")  # the lease is 0.6 s
        tasks = made.database.add_tasks(2)
        made.complete(tasks)
        made.start(2)
        made.wait(lambda: made.effects() >= 2, "nothing was done")
        made.wait_until_done()
        assert made.database.contents(*tasks) == dict.fromkeys(tasks, 1)
        assert [made.database.verdicts(task_id) for task_id in tasks] == [["processed"]] * 2


def listeners(made: Site) -> int:
    with made.database.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "select count(*) from pg_stat_activity where query like 'LISTEN%%' and datname = current_database()"
        )
        return int(found.scalar_one())
