"""The HTTP contract, and checks that an attack has changed nothing."""

from __future__ import annotations

from tests.support.raw_http import completed
from tests.support.web_server import figure

SECRET = "a-secret-of-more-than-thirty-two-characters"
MIB = 1024 * 1024
CONTRACT = {200, 400, 401, 403, 404, 409, 413, 415, 429}
OWN_REFUSALS_OF_GUNICORN = {400, 414, 431}
MOST_MEMORY = 200 * MIB
PROGRESS = b'{"event":"progress","taskId":"ID","progress":%b}'


def event(task_id, body):
    """A body, with the task's id where the text says ID."""
    return body.replace(b"ID", task_id.encode())


def assert_untouched(web, *task_ids):
    for task_id in task_ids:
        assert web.database.status(task_id) == "submitted"
        assert web.database.contents(task_id) == {task_id: 0}


def assert_works_as_before(server, sign=None):
    task_id = server.database.add_task()
    body = completed(task_id)
    headers = {} if sign is None else {"X-Hub-Signature-256": sign(body, SECRET)}

    assert server.post(task_id, body, headers=headers).outcome == "processed"
    peak = max(server.peak_memory().values())
    figure(f"peak at the end: {peak / MIB:.0f} MiB")
    # PyMySQL writes the values into the text of the statement, a few copies more.
    assert peak < MOST_MEMORY + (100 * MIB if server.database.url.startswith("mysql") else 0)
    assert "Traceback" not in server.gunicorn.log
