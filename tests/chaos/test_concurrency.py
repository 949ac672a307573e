"""Many copies of a callback at one moment, over as many connections: one effect, and a good answer for each.

Without the compare-and-set nearly all of these tests fail in their first or second round; ``CHAOS_ROUNDS=20`` plays
more.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.runtime.state import get_state
from tests.support.audited import serve_and_audit
from tests.support.databases import CHAOS_KINDS
from tests.support.raw_http import callback, completed, failed, post, send_together
from tests.support.web_host import create_app, db
from tests.support.web_server import figure

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6"))
COPIES = 50
SECRET = "of-a-process-that-takes-no-requests-at-all"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=CHAOS_KINDS)
def url(request, new_database):
    return new_database(request.param)


@pytest.fixture(scope="module", params=[2, 4], ids=["2 workers", "4 workers"])
def web(request, url, tmp_path_factory):
    with serve_and_audit(url, tmp_path_factory.mktemp("switch"), workers=request.param) as web:
        yield web


class Finished:
    """A creator whose jobs are all done; it answers at the moment at which the callbacks are sent."""

    content = "# From a poll"

    def __init__(self):
        self.gate = threading.Barrier(2)

    def statuses(self, names, **_):
        self.gate.wait(30)
        return {name: Report(state=RemoteState.COMPLETED, result={"content": self.content}) for name in names}


@pytest.fixture
def poller(web):
    """A scheduler beside the server: its creator, and the function that lets it ask."""
    app, creator = create_app(DATABASE_URL=web.database.url, WEBHOOK_SECRET_KEY=SECRET), Finished()
    state = get_state(app)
    state.creator = creator  # type: ignore[assignment]

    def poll():
        with app.app_context():
            return ContentHubWebhook().reconcile()

    yield creator, poll
    with app.app_context():
        db.engine.dispose()


def test_identical_completed_have_one_effect(web):
    for task_id in web.database.add_tasks(ROUNDS):
        answers = send_together(web.port, [post(callback(task_id), completed(task_id))] * COPIES)

        assert Counter(answer.status for answer in answers) == {200: COPIES}
        assert Counter(answer.outcome for answer in answers) == {"processed": 1, "duplicate": COPIES - 1}
        assert web.database.contents(task_id) == {task_id: 1}
        assert web.database.status(task_id) == "completed"


@pytest.mark.parametrize("query", ["", "attempt=1"], ids=["no attempt", "attempt 1"])
@pytest.mark.parametrize("max_retries", [0, 3])
def test_completed_wins_over_failed_in_whatever_order_they_come(web, max_retries, query):
    """Before it the failure counts, once; after it, not at all; and a failed task completes late."""
    for task_id in web.database.add_tasks(ROUNDS // 2, max_retries=max_retries):
        good, bad = post(callback(task_id, query), completed(task_id)), post(callback(task_id, query), failed(task_id))
        requests = list(itertools.islice(itertools.cycle([bad, good]), COPIES))

        answers = send_together(web.port, requests)

        assert Counter(answer.status for answer in answers) == {200: COPIES}
        assert sum(answer.outcome == "processed" for answer in answers[1::2]) == 1
        processed_failures = sum(answer.outcome == "processed" for answer in answers[0::2])
        assert processed_failures <= 1
        assert web.database.contents(task_id) == {task_id: 1}
        assert web.database.failures(task_id) == {task_id: processed_failures}
        task = web.database.task(task_id)
        assert task.status == "completed"
        assert task.attempt == 1 + (processed_failures if max_retries else 0)
        assert (task.error_code, task.error_message) == (None, None)
        # The history tells the same story as the answers, and only one row after a failure for good is late.
        assert len(web.database.deliveries(task_id)) == COPIES
        late = sum(row.late for row in web.database.deliveries(task_id))
        assert late == (processed_failures if max_retries == 0 else 0)


def test_a_callback_and_a_poll_have_one_effect(web, poller):
    creator, poll = poller
    won = Counter[str]()
    for number in range(2 * ROUNDS):
        now = datetime.now(UTC)
        due = {"next_poll_at": now - timedelta(seconds=1), "submitted_at": now, "deadline_at": now + timedelta(hours=1)}
        task_id = web.database.add_task(creator_task_id=f"job-{number}", **due)
        with ThreadPoolExecutor(1) as pool:
            polled = pool.submit(poll)
            creator.gate.wait(30)
            time.sleep(random.uniform(0, 0.02))  # or the callback would nearly always be the first
            answers = send_together(web.port, [post(callback(task_id), completed(task_id))] * 3)
            report = polled.result()

        assert (report.claimed, report.errors) == (1, 0)
        assert {answer.status for answer in answers} == {200}
        assert web.database.contents(task_id) == {task_id: 1}
        assert web.database.status(task_id) == "completed"
        history = web.database.deliveries(task_id)
        (winner,) = (row for row in history if row.verdict == "processed")
        assert {row.verdict for row in history} == {"processed", "duplicate"}
        won[winner.source] += 1
    figure(f"{web.gunicorn.workers} workers, {2 * ROUNDS} rounds, won by {dict(won)}")


@pytest.mark.parametrize("query", ["", "attempt=1"], ids=["no attempt", "attempt 1"])
def test_the_senders_four_tries_of_one_failed_are_one_failure(web, query):
    for task_id in web.database.add_tasks(ROUNDS):
        answers = send_together(web.port, [post(callback(task_id, query), failed(task_id))] * 4)

        assert [answer.status for answer in answers] == [200] * 4
        assert sum(answer.outcome == "processed" for answer in answers) == 1
        assert web.database.failures(task_id) == {task_id: 1}
        assert (web.database.task(task_id).status, web.database.task(task_id).attempt) == ("pending", 2)


def test_callbacks_of_many_tasks_do_not_disturb_each_other(web):
    task_ids = web.database.add_tasks(COPIES)

    answers = send_together(web.port, [post(callback(t), completed(t, content=t)) for t in task_ids for _ in range(2)])

    assert Counter(answer.outcome for answer in answers) == {"processed": COPIES, "duplicate": COPIES}
    assert web.database.contents(*task_ids) == dict.fromkeys(task_ids, 1)
