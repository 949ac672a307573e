"""The events of each task are applied in the order in which they came, however many workers there are.

``ORDER_TASKS``, ``ORDER_EVENTS`` (of each task) and ``ORDER_WORKERS`` (processes) say how many.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

from tests.support.web_server import figure
from tests.support.workers import site, size

TASKS = size("ORDER_TASKS", 60)
EVENTS = size("ORDER_EVENTS", 10)
WORKERS = size("ORDER_WORKERS", 2)
THREADS = 2


def numbered(task_id: str, number: int) -> bytes:
    return json.dumps({"event": "numbered", "taskId": task_id, "number": number}).encode()


def test_events_of_many_tasks_through_several_workers(database_url: str, tmp_path: Path) -> None:
    with site(database_url, tmp_path) as made:
        tasks = made.database.add_tasks(TASKS)
        events = list(itertools.product(range(EVENTS), tasks))  # the events of a task come with those of others between
        half = len(events) // 2
        for number, task_id in events[:half]:
            assert made.post(task_id, numbered(task_id, number)) == 202
        started = time.monotonic()
        made.start(WORKERS, threads=THREADS)
        for number, task_id in events[half:]:  # these come while the others are worked off
            assert made.post(task_id, numbered(task_id, number)) == 202
        made.wait_until_done(600)
        took = time.monotonic() - started

        applied = defaultdict(list)
        for row in made.contents():
            applied[row.task_id].append(int(row.body))
        assert applied == {task_id: list(range(EVENTS)) for task_id in tasks}
        assert {row.verdict for row in made.deliveries()} == {"processed"}
        figure(f"{len(events)} events of {TASKS} tasks, {WORKERS} x {THREADS} threads: {took:.1f} s")
