"""The gateway in front of the simulated creator, and its set-up on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support.simulator import call, simulator, submit, submitted, wait_for


def test_it_passes_everything_on_and_shows_itself():
    with simulator(gateway=True) as creator:
        answer = submit(creator)
        assert (answer.status_code, answer.json()["data"]["status"]) == (201, "completed")
        assert answer.headers["server"].startswith("nginx")
        task_id = answer.json()["data"]["taskId"]
        assert call(creator, "GET", f"/api/tasks/{task_id}").json()["data"]["id"] == task_id
        assert creator.answered_by_gateway == {}


def test_it_answers_502_where_a_call_kills_and_until_the_creator_is_back():
    with simulator(gateway=True, restart_after=None) as creator:
        for path in ("/api/tasks/nobody", "/health"):
            answer = call(creator, "GET", path)
            assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")
        assert creator.death_reasons == ("GET of an unknown id",)
        creator.restart()
        assert call(creator, "GET", "/health").status_code == 200


def test_a_call_that_waits_ends_with_502_when_the_creator_dies():
    with simulator(gateway=True, work_time=None) as creator, submitted(creator) as answer:
        creator.crash()
        assert answer.result(10).status_code == 502


def test_in_an_outage_it_answers_in_four_ways_one_after_the_other():
    now = [datetime.now(UTC)]
    with simulator(gateway=True, clock=lambda: now[0]) as creator:
        creator.begin_outage(180)
        answers = []
        for _ in range(5):
            answers.append(call(creator, "GET", "/health"))
            now[0] += timedelta(seconds=45)
        assert [answer.status_code for answer in answers] == [502, 504, 200, 429, 200]
        assert "<html>" in answers[2].text
        assert answers[3].headers["retry-after"] == "30"
        assert answers[4].json()["status"] == "ok"
        assert creator.answered_by_gateway == {502: 1, 504: 1, 200: 1, 429: 1}


def test_connections_are_kept_and_calls_on_them_come_in_order():
    with simulator(gateway=True) as creator, httpx.Client(base_url=creator.base_url) as client:
        assert [client.get("/health").status_code for _ in range(5)] == [200] * 5
        assert client.get("/api/tasks/nobody").status_code == 502
        wait_for(lambda: creator.death_reasons and creator.up)
        assert client.get("/health").status_code == 200


def test_there_is_no_outage_without_a_gateway():
    with simulator() as creator, pytest.raises(RuntimeError):
        creator.begin_outage(1)


def test_on_postgres_a_result_kills_it():
    with simulator(gateway=True, database="postgres") as creator:
        task_id = submit(creator).json()["data"]["taskId"]
        assert call(creator, "GET", f"/api/tasks/{task_id}").status_code == 200
        assert call(creator, "GET", f"/api/tasks/{task_id}/result").status_code == 502
        wait_for(lambda: creator.death_reasons and creator.up)
        assert creator.death_reasons == ("GET of a result on Postgres",)


def test_on_postgres_a_version_that_does_as_documented_has_results():
    with simulator(api="paper", database="postgres") as creator:
        task_id = submit(creator).json()["data"]["taskId"]
        assert call(creator, "GET", f"/api/tasks/{task_id}/result").status_code == 200
