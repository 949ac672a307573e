"""The log of trouble with the database: nothing of what was to be written, and no traceback for each request."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import delivery_processed, task_completed
from flask_contenthub_webhook.runtime.backpressure import Backpressure
from tests.support.host import Host

SECRET = "the words of an article that nobody but the customer may read " * 20


def article(host: Host, task_id: str) -> int:
    return host.post(task_id, {"event": "completed", "taskId": task_id, "result": {"content": SECRET}}).status_code


def logged(caplog: pytest.LogCaptureFixture) -> str:
    formatter = logging.Formatter()
    return "\n".join(formatter.format(record) for record in caplog.records)


def test_a_handlers_statement_that_fails_shows_none_of_its_values(host: Host, caplog: pytest.LogCaptureFixture):
    def publish(_app, *, result, **_extra) -> None:
        host.db.session.execute(sa.text("INSERT INTO no_such_table VALUES (:body)"), {"body": result["content"]})

    task_completed.connect(publish, host.app)
    task_id = host.add_task()

    assert article(host, task_id) == 500

    text = logged(caplog)
    assert "no_such_table" in text
    assert "the words of an article" not in text
    assert "no_such_table" in host.deliveries(task_id)[0].error
    assert "the words of an article" not in host.deliveries(task_id)[0].error


def test_a_receiver_after_the_commit_shows_none_of_its_values(host: Host, caplog: pytest.LogCaptureFixture):
    def note(_app, *, task, **_extra) -> None:
        host.db.session.execute(sa.text("INSERT INTO no_such_table VALUES (:body)"), {"body": task.result["content"]})

    delivery_processed.connect(note, host.app)

    assert article(host, host.add_task()) == 200

    assert "no_such_table" in logged(caplog)
    assert "the words of an article" not in logged(caplog)


@pytest.mark.parametrize("processing", ["inline", "worker"])
def test_callbacks_without_tables_are_one_line(
    hosts: Callable[..., Host], database_url: str, processing: str, caplog: pytest.LogCaptureFixture
):
    host = hosts(database_url, WEBHOOK_PROCESSING=processing)
    task_id = host.add_task()
    with host.app.app_context():
        host.db.drop_all()

    assert {article(host, task_id) for _ in range(20)} == {503}

    text = logged(caplog)
    assert text.count("more of this kind are only counted") == text.count("run `flask db upgrade`") == 1
    assert "the words of an article" not in text
    assert "Traceback" not in text
    assert len(text) < 1_000


def test_counting_the_inbox_without_tables_is_one_line(host: Host, caplog: pytest.LogCaptureFixture):
    with host.app.app_context():
        host.db.drop_all()
    backpressure = Backpressure(host.state.database, 10, recount=0)

    for _ in range(3):
        backpressure.admit()

    assert [record.exc_info for record in caplog.records] == [None]
    assert "run `flask db upgrade`" in caplog.records[0].getMessage()
