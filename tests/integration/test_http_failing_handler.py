"""A host's handler that fails, over real HTTP: nothing is lost, and in the end there is one effect."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest

from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from flask_contenthub_webhook.models.columns import utc_now
from flask_contenthub_webhook.runtime.state import get_state
from tests.support.databases import KINDS
from tests.support.raw_http import completed, failed
from tests.support.web_host import create_app, db
from tests.support.web_server import serve

SECRET = "of-another-process-that-takes-no-requests"


@pytest.fixture(scope="module", params=KINDS)
def web(request, new_database, tmp_path_factory):
    with serve(new_database(request.param), tmp_path_factory.mktemp("failing")) as web:
        yield web


@pytest.fixture(autouse=True)
def _mended_in_the_end(web):
    yield
    web.switch.unlink(missing_ok=True)


@pytest.fixture
def scheduler(web):
    """What a later issue's scheduler does: another process on the same database, whose clock the test moves."""
    app = create_app(DATABASE_URL=web.database.url, WEBHOOK_SECRET_KEY=SECRET)

    def run_at(seconds_from_now):
        state = get_state(app)
        state.clock = lambda: utc_now() + timedelta(seconds=seconds_from_now)
        return retry_due_deliveries(state)

    yield run_at
    with app.app_context():
        db.engine.dispose()


def break_(web, action="raise the pool is closed"):
    web.switch.write_text(action)


def test_the_answer_is_500_and_nothing_but_the_history_is_written(web):
    break_(web)
    task_id = web.database.add_task()

    answer = web.post(task_id, completed(task_id))

    assert (answer.status, answer.code) == (500, "handler_failed")
    assert b"the pool is closed" not in answer.body
    assert b"Traceback" not in answer.body
    task = web.database.task(task_id)
    assert (task.status, task.version, task.result) == ("submitted", 1, None)
    assert web.database.contents(task_id) == {task_id: 0}
    (delivery,) = web.database.deliveries(task_id)
    assert delivery.id == answer.json["error"]["delivery_id"]
    assert (delivery.verdict, delivery.tries, delivery.body) == ("failed", 1, completed(task_id))
    assert "ValueError: the pool is closed" in delivery.error
    assert delivery.next_retry_at is not None


def test_once_mended_and_due_it_is_applied_once(web, scheduler):
    break_(web)
    task_id = web.database.add_task()
    web.post(task_id, completed(task_id))
    web.switch.write_text("")

    scheduler(1)
    assert web.database.contents(task_id) == {task_id: 0}
    scheduler(3_600)
    scheduler(7_200)

    assert web.database.contents(task_id) == {task_id: 1}
    assert web.database.status(task_id) == "completed"
    assert web.database.verdicts(task_id) == ["processed"]
    assert web.post(task_id, completed(task_id)).outcome == "duplicate"


def test_the_sender_coming_again_and_our_own_retry_have_one_effect(web, scheduler):
    break_(web)
    task_id = web.database.add_task()
    assert [web.post(task_id, completed(task_id)).status for _ in range(4)] == [500] * 4
    web.switch.write_text("")

    assert web.post(task_id, completed(task_id)).outcome == "processed"
    scheduler(3_600)

    assert web.database.contents(task_id) == {task_id: 1}
    assert sorted(web.database.verdicts(task_id)) == ["duplicate"] * 4 + ["processed"]


def test_a_failed_whose_handler_failed_counts_once(web, scheduler):
    break_(web)
    task_id = web.database.add_task()
    assert web.post(task_id, failed(task_id)).status == 500
    assert web.database.task(task_id).attempt == 1
    web.switch.write_text("")

    assert web.post(task_id, failed(task_id)).outcome == "processed"
    scheduler(3_600)

    assert web.database.failures(task_id) == {task_id: 1}
    assert web.database.task(task_id).attempt == 2


def test_what_is_never_mended_is_parked_and_the_task_stays_open(web, scheduler, monkeypatch):
    monkeypatch.setenv("TEST_HOST_SWITCH", str(web.switch))
    broken = create_app(
        DATABASE_URL=web.database.url, WEBHOOK_SECRET_KEY=SECRET
    )  # a scheduler whose handlers are broken too
    break_(web)
    task_id = web.database.add_task()
    web.post(task_id, completed(task_id))
    state = get_state(broken)
    for hours in range(1, 6):
        later = utc_now() + timedelta(hours=hours)
        state.clock = partial(datetime.replace, later)
        retry_due_deliveries(state)
    with broken.app_context():
        db.engine.dispose()

    (delivery,) = web.database.deliveries(task_id)
    assert (delivery.verdict, delivery.tries, delivery.next_retry_at) == ("dead", 4, None)
    assert web.database.status(task_id) == "submitted"
    assert web.database.contents(task_id) == {task_id: 0}


@pytest.mark.parametrize(
    "action",
    ["raise a name that is no text: \\udcff", "raise a NUL: \\x00", "unprintable", "raise 字🎉"],
    ids=["surrogate", "NUL", "no text at all", "unicode"],
)
def test_whatever_the_error_says_the_event_is_kept(web, action):
    break_(web, action)
    task_id = web.database.add_task()

    answer = web.post(task_id, completed(task_id))

    assert answer.headers.get_content_type() == "application/json"
    assert (answer.status, answer.code) == (500, "handler_failed")
    (delivery,) = web.database.deliveries(task_id)
    assert delivery.verdict == "failed"
    assert delivery.error
