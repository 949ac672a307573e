"""``flask webhook recover``: a restored backup pays for nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.cli.conftest import run, run_json
from tests.support.host import Host, completed, failed, progress
from tests.support.submission import BASE, cancel, reconcile, submit, sweep

Rows = list[dict[str, Any]]


@pytest.fixture
def simulator(hosts: Callable[..., Host], database_url: str) -> Iterator[tuple[Host, CreatorSimulator]]:
    hub = hosts(database_url, WEBHOOK_SUBMIT_THREADS=0, WEBHOOK_CALLBACK_BASE_URL=BASE, CREATOR_SUBMIT_WAIT=5)
    with CreatorSimulator(time_scale=0.02, restart_after=None, clock=hub.clock, orphans="failed") as simulator:
        hub.state.creator = HttpCreator(simulator.base_url, timeout=5, clock=hub.clock)
        yield hub, simulator


def backup(host: Host) -> Rows:
    with host.engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(host.state.task_model.__table__)).mappings()]


def restore(host: Host, rows: Rows) -> None:
    """Everything that was written since is gone, from the history as well."""
    with host.engine.begin() as connection:
        for table in reversed(host.db.metadata.sorted_tables):
            connection.execute(sa.delete(table))
        if rows:
            connection.execute(sa.insert(host.state.task_model.__table__), rows)


def work_for(host: Host, seconds: int) -> None:
    """Let the scheduler run."""
    for _ in range(seconds // 60):
        host.clock.advance(60)
        sweep(host)
        reconcile(host)


def submissions(simulator: CreatorSimulator) -> int:
    return simulator.requests["POST /api/tasks"]


def test_tasks_that_waited_in_the_backup_take_over_what_the_service_has_done(simulator):
    """Four tasks, and eight submissions, of which the second ones marked the good results failed."""
    hub, service = simulator
    for _ in range(4):
        submit(hub)
    of_an_hour_ago = backup(hub)
    sweep(hub)
    articles = {task.task_id: task.result["content"] for task in hub.tasks()}
    assert submissions(service) == len(articles) == 4
    hub.clock.advance(3600)
    restore(hub, of_an_hour_ago)

    result = run(hub, "recover", "--since", of_an_hour_ago[0]["created_at"].isoformat())

    assert result.exit_code == 0, result.output
    assert "about 4 tasks that wait for submission, and about 0 submitted ones" in result.stdout
    work_for(hub, 600)
    assert {task.task_id: task.result["content"] for task in hub.tasks()} == articles
    assert submissions(service) == 4
    assert service.deaths == 0


def test_without_it_they_are_paid_twice(simulator):
    """So that the test above can fail."""
    hub, service = simulator
    task_id = submit(hub)
    of_an_hour_ago = backup(hub)
    sweep(hub)
    hub.clock.advance(3600)
    restore(hub, of_an_hour_ago)
    work_for(hub, 600)
    assert submissions(service) > 1
    assert hub.task(task_id).attempt > 1


def test_a_task_that_the_service_does_not_have_is_submitted(simulator):
    hub, service = simulator
    task_id = submit(hub)
    restore(hub, backup(hub))
    hub.clock.advance(3600)
    assert run_json(hub, "recover", "--since", "2h")["waiting"] == 1
    work_for(hub, 300)
    assert (hub.task(task_id).status, submissions(service)) == ("completed", 1)


def test_an_attempt_that_began_after_the_backup_is_found_as_well(simulator):
    """The backup knows the first one; the service failed it since, and has the result of the second."""
    hub, service = simulator
    task_id = submit(hub)
    of_an_hour_ago = backup(hub)
    first = hub.task(task_id).creator_task_id
    service.add_task(first, state="failed", error="LLM away", created_at=hub.clock.now)
    hub.post(task_id, failed(first), attempt=1)
    hub.clock.advance(40)
    sweep(hub)
    article = hub.task(task_id).result["content"]
    assert submissions(service) == 1
    restore(hub, of_an_hour_ago)
    hub.clock.advance(3600)
    run(hub, "recover", "--since", "2h")
    work_for(hub, 600)
    assert (hub.task(task_id).attempt, hub.task(task_id).result["content"]) == (2, article)
    assert submissions(service) == 1


def test_submitted_tasks_are_asked_about_at_once_and_not_timed_out_first(simulator):
    hub, service = simulator
    task_id, running = submit(hub), submit(hub)
    names = {one: hub.task(one).creator_task_id for one in (task_id, running)}
    service.add_task(names[task_id], state="running", created_at=hub.clock.now)
    service.add_task(names[running], state="running", created_at=hub.clock.now)
    run(hub, "recover", "--since", "1m")
    sweep(hub)
    of_an_hour_ago = backup(hub)
    assert {row["status"] for row in of_an_hour_ago} == {"submitted"}
    service.add_task(names[task_id], state="completed", result={"content": "# T"}, created_at=hub.clock.now)
    hub.clock.advance(7200)
    restore(hub, of_an_hour_ago)
    assert run_json(hub, "recover", "--since", "3h")["submitted"] == 2
    reconcile(hub)
    assert (hub.task(task_id).status, hub.task(running).status) == ("completed", "submitted")


def test_events_of_a_later_attempt_than_the_backup_has_do_no_harm(simulator):
    hub, service = simulator
    task_id = submit(hub)
    hub.post(task_id, progress("of the second attempt", 40), attempt=2)
    assert service.requests["DELETE /api/tasks/:id"] == 0
    assert hub.post(task_id, completed("of the second attempt"), attempt=2).get_json()["outcome"] == "processed"


def test_what_has_ended_is_left_alone(simulator):
    hub, _ = simulator
    task_id = submit(hub)
    cancel(hub, task_id)
    before = backup(hub)
    assert run_json(hub, "recover", "--since", "1h")["waiting"] == 0
    assert backup(hub) == before


def test_a_service_that_cannot_be_asked_is_told_of(simulator):
    hub, _ = simulator
    hub.state.creator.keeps_names = False
    hub.state.creator.find = None
    submit(hub)
    assert "end with a callback or at their deadline" in run(hub, "recover", "--since", "1h").stderr


@pytest.mark.parametrize("arguments", [(), ("--since", "soon"), ("--since", "2999-01-01")])
def test_wrong_usage(simulator, arguments):
    hub, _ = simulator
    assert run(hub, "recover", *arguments).exit_code == 2
