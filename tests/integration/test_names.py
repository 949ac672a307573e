"""Names that differ only by case, accent or width are two, on every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from tests.support.host import Host, completed, failed

Build = Callable[..., Host]
ALIKE = ["job-E", "job-e"]


@pytest.fixture(params=["sqlite_url", "postgres_url", "mariadb_url"])
def host(request: pytest.FixtureRequest, hosts: Build) -> Host:
    return hosts(request.getfixturevalue(request.param))


def test_tasks_with_ids_that_look_alike_are_different_tasks(host: Host) -> None:
    for task_id in ALIKE:
        host.add_task(task_id=task_id)

    assert host.post("job-e", completed("job-e")).status_code == 200

    assert [host.task(task_id).status for task_id in ALIKE] == ["submitted", "completed"]
    assert len(host.deliveries("job-e")) == 1
    assert host.deliveries("job-E") == []


def test_a_callback_that_names_the_job_of_another_task_is_not_for_this_one(host: Host) -> None:
    task_id = host.add_task(creator_task_id="job-é")

    for other in ("job-e", "job-É"):
        assert host.post_signed(task_id, completed(other), "standard", message_id=other).status_code != 200
    assert host.task(task_id).status == "submitted"

    assert host.post_signed(task_id, completed("job-é"), "standard", message_id="right").status_code == 200


def test_messages_with_ids_that_look_alike_are_two_messages(host: Host) -> None:
    task_id = host.add_task(max_retries=5)

    for number, message_id in enumerate(["msg_a", "msg_A", "msg_a"]):
        event = failed(task_id, message=f"failure {number}")
        assert host.post_signed(task_id, event, "standard", message_id=message_id).status_code == 200

    assert [row.verdict for row in host.deliveries()].count("duplicate") == 1


def test_a_word_that_is_no_state_is_refused_in_any_case(host: Host) -> None:
    task_id = host.add_task()
    with pytest.raises(sa.exc.DBAPIError), host.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE content_generation_tasks SET status = 'COMPLETED' WHERE task_id = :task_id"),
            {"task_id": task_id},
        )
