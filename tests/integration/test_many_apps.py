"""A process that makes many applications keeps nothing of those that are gone, though they refused requests."""

from __future__ import annotations

import gc
import weakref
from functools import partial

from tests.support.host import Host, completed, make_host
from tests.support.processes import wait_until


def is_written(host: Host) -> bool:
    return not host.state.refusals._memory.value.is_timed


def test_no_callback_of_the_end_of_the_process_keeps_an_application(sqlite_url: str) -> None:
    gone = []
    for number in range(5):
        host = make_host(sqlite_url, TESTING=False, create_tables=number == 0)
        task_id = host.add_task()
        for _ in range(3):
            assert host.post(task_id, completed(task_id), path=f"{host.path(task_id)}wrong").status_code == 401
        gone.append(weakref.ref(host.app))
        wait_until(partial(is_written, host), timeout=60, what="the refusals are written", log=lambda: "")
        host.close()
        del host
    gc.collect()

    assert [app() for app in gone if app() is not None] == []
