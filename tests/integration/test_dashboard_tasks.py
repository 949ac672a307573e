"""The pages of tasks: what is open, overdue and failed, by service; retry and cancellation by a person."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flask_contenthub_webhook.contrib.dashboard import tasks
from flask_contenthub_webhook.creators import Creators, HttpCreator
from tests.support.host import completed
from tests.support.pages import AT, Visitor, mount, open_to_all


def add(host, topic, **columns):
    """A task whose callback is expected in a minute, and which may take an hour."""
    now = host.clock()
    defaults = {"next_poll_at": now + timedelta(minutes=1), "deadline_at": now + timedelta(hours=1)}
    return host.add_task(topic=topic, **(defaults | columns))


def end(host, topic, status, **columns):
    return add(host, topic, status=status, next_poll_at=None, finished_at=host.clock(), **columns)


def topics(page):
    """The tasks of the list, from top to bottom, by their topics."""
    listed = [attributes["data-task"] for name, attributes in page.elements if "data-task" in attributes]
    return [text for task_id in listed for target, text in page.links if target == f"{AT}/task?id={task_id}"]


class TestList:
    def test_what_is_open_comes_first_by_its_next_step(self, visitor):
        host = visitor.host
        add(host, "late", next_poll_at=host.clock() + timedelta(minutes=9))
        add(host, "soon", status="pending", next_submit_at=host.clock() + timedelta(minutes=2))
        end(host, "done", "completed")

        page = visitor.see("/tasks")

        assert topics(page) == ["soon", "late"]
        assert "hand it to the service: " in page.text
        assert "a callback; else the service is asked: " in page.text

    def test_what_nobody_does_is_overdue(self, visitor):
        host = visitor.host
        add(host, "on time")
        add(host, "nobody asks", next_poll_at=host.clock() - timedelta(minutes=2))
        add(host, "past its deadline", deadline_at=host.clock() - timedelta(seconds=1))
        add(host, "not handed over", status="pending", next_submit_at=host.clock() - timedelta(minutes=2))

        assert topics(visitor.see("/tasks?show=overdue")) == ["nobody asks", "past its deadline", "not handed over"]
        overview = visitor.see("/")
        assert overview.found(r"overdue tasks ?(\d)") == "3"
        assert overview.link("overdue tasks") == f"{AT}/tasks?show=overdue"
        assert overview.link("open tasks") == f"{AT}/tasks"

    def test_what_failed_says_why(self, visitor):
        end(visitor.host, "broken", "failed", error_code="LLM_ERROR", error_message="No model answers.")
        end(visitor.host, "too slow", "timeout")
        end(visitor.host, "unwanted", "cancelled")
        add(visitor.host, "going on")

        page = visitor.see("/tasks?show=failed")

        assert topics(page) == ["too slow", "broken"]
        assert "LLM_ERROR: No model answers." in page.text
        assert topics(visitor.see("/tasks?show=all")) == ["going on", "unwanted", "too slow", "broken"]

    def test_a_service_has_its_own(self, hosts, sqlite_url):
        writer, painter = (HttpCreator(f"http://{name}.example") for name in ("writer", "painter"))
        creators = Creators(writer=writer, painter=painter)
        visitor = Visitor(hosts(sqlite_url, models=lambda _: {"creator": creators}, after=open_to_all))
        add(visitor.host, "a text", creator_name="writer")
        add(visitor.host, "a picture", creator_name="painter")
        add(visitor.host, "from before there were two")

        assert topics(visitor.see("/tasks?service=painter")) == ["a picture"]
        assert topics(visitor.see("/tasks?service=writer")) == ["a text", "from before there were two"]
        assert visitor.see("/tasks").link("painter") == f"{AT}/tasks?show=open&service=painter"
        assert visitor.get("/tasks?service=nobody").status_code == 400

    @pytest.mark.parametrize("same", [False, True], ids=["at different times", "at one time"])
    def test_all_that_is_open_is_paged_through(self, visitor, monkeypatch, same):
        monkeypatch.setattr(tasks, "PER_PAGE", 2)
        now = visitor.host.clock()
        for number in range(5):
            add(visitor.host, f"n{number}", next_poll_at=now + timedelta(seconds=0 if same else number))

        pages = [topics(page) for page in visitor.walk("/tasks", "Next")]

        assert pages == [["n0", "n1"], ["n2", "n3"], ["n4"]]

    def test_a_long_search_says_where_it_stopped_and_goes_on(self, visitor, monkeypatch):
        monkeypatch.setattr(tasks, "MOST_ROWS", 2)
        now = visitor.host.clock()
        for number in range(5):
            add(visitor.host, f"n{number}", next_poll_at=now + timedelta(seconds=number))
        add(visitor.host, "old", next_poll_at=now + timedelta(seconds=9), deadline_at=now - timedelta(days=1))

        pages = list(visitor.walk("/tasks?show=overdue", "Search further"))

        assert [topics(page) for page in pages] == [[], [], ["old"], []]
        assert "The search stopped after" in pages[0].text

    @pytest.mark.parametrize("query", ["show=nothing", "service=nobody"])
    def test_what_it_does_not_know_is_said(self, visitor, query):
        assert visitor.get(f"/tasks?{query}").status_code == 400

    @pytest.mark.parametrize("place", ["x", "-", "1-", "9" * 30 + "-1", "1-99999999999999999", "0-" + "9" * 25])
    def test_a_place_that_is_none_is_the_beginning(self, visitor, place):
        add(visitor.host, "soon")

        assert topics(visitor.see(f"/tasks?from={place}")) == ["soon"]

    def test_the_number_of_statements_is_fixed(self, visitor):
        for number in range(20):
            add(visitor.host, f"n{number}")
        visitor.see("/tasks")  # a new connection is asked what it can hold
        for path in ("/tasks", "/tasks?show=overdue", "/tasks?show=failed", "/tasks?show=all"):
            with visitor.host.statements() as statements:
                visitor.see(path)
            assert len([one for one in statements if not one.startswith(("COMMIT", "SET"))]) <= 4, statements


class TestActions:
    @pytest.mark.parametrize(
        ("status", "offered"),
        [
            ("pending", "Cancel"),
            ("submitted", "Cancel"),
            ("processing", "Cancel"),
            ("failed", "Retry"),
            ("timeout", "Retry"),
            ("cancelled", "Retry"),
            ("completed", None),
        ],
    )
    def test_a_state_has_its_action_on_the_list_and_on_the_task(self, visitor, status, offered):
        task_id = visitor.host.add_task(topic="Tea", status=status)

        for page in (visitor.see("/tasks?show=all"), visitor.see(f"/task?id={task_id}")):
            found = {words: page.link(f"{words} …") for words in ("Retry", "Cancel")}
            expected = dict.fromkeys(("Retry", "Cancel"))
            if offered:
                expected[offered] = f"{AT}/task/{offered.lower()}?id={task_id}"
            assert found == expected

    def test_a_task_is_cancelled_after_a_question(self, visitor):
        task_id = add(visitor.host, "Tea")
        page = visitor.see(f"/task/cancel?id={task_id}")
        assert visitor.host.task(task_id).status == "submitted"

        answer = visitor.submit(page, f"{AT}/task/cancel")

        assert answer.status_code == 303
        assert visitor.host.task(task_id).status == "cancelled"
        assert "The task was cancelled." in visitor.see(answer.location).text

    def test_a_task_is_retried_after_a_question(self, visitor):
        task_id = end(visitor.host, "Tea", "failed")

        answer = visitor.submit(visitor.see(f"/task/retry?id={task_id}"), f"{AT}/task/retry")

        task = visitor.host.task(task_id)
        assert (task.status, task.attempt) == ("pending", 2)
        assert "The task has another attempt." in visitor.see(answer.location).text

    def test_what_has_ended_meanwhile_is_left_alone(self, visitor):
        task_id = add(visitor.host, "Tea")
        page = visitor.see(f"/task/cancel?id={task_id}")
        visitor.host.post(task_id, completed(task_id))

        answer = visitor.submit(page, f"{AT}/task/cancel")

        assert answer.status_code == 409
        assert 'role="alert"' in answer.text
        assert visitor.host.task(task_id).status == "completed"
        again = visitor.see(f"/task/cancel?id={task_id}", status=409)
        assert "A task that is completed cannot be cancelled" in again.text
        assert not [form for form in again.forms if form.method == "post"]

    @pytest.mark.parametrize("task_id", ["nobody", "a\0b", ""])
    def test_a_task_that_is_not_there_is_not_found(self, visitor, task_id):
        other = visitor.see(f"/task/cancel?id={add(visitor.host, 'Tea')}")

        assert visitor.get("/task/cancel", query_string={"id": task_id}).status_code == 404
        assert visitor.submit(other, f"{AT}/task/cancel", fields={"id": task_id}).status_code == 404

    def test_a_form_of_another_site_changes_nothing(self, visitor):
        task_id = add(visitor.host, "Tea")
        page = visitor.see(f"/task/cancel?id={task_id}")

        answers = [
            visitor.submit(page, "/task/cancel", headers={"Origin": "https://evil.example"}),
            visitor.submit(page, "/task/cancel", fields={"dashboard_token": "guessed"}),
            visitor.client.post(f"{AT}/task/cancel", data={"id": task_id}),
        ]

        assert [answer.status_code for answer in answers] == [403] * 3
        assert visitor.host.task(task_id).status == "submitted"

    def test_who_may_not_see_the_pages_may_not_act(self, hosts, sqlite_url):
        visitor = Visitor(hosts(sqlite_url, after=mount(lambda: False)))
        task_id = add(visitor.host, "Tea")

        assert visitor.get("/tasks").status_code == 403
        assert visitor.get(f"/task/cancel?id={task_id}").status_code == 403
        assert visitor.client.post(f"{AT}/task/cancel", data={"id": task_id}).status_code == 403
        assert visitor.host.task(task_id).status == "submitted"

    def test_without_a_key_the_pages_only_show(self, hosts, sqlite_url):
        visitor = Visitor(hosts(sqlite_url, after=open_to_all, SECRET_KEY=...))
        page = visitor.see(f"/task/cancel?id={add(visitor.host, 'Tea')}")

        assert "Nothing can be changed from here" in page.text
        assert not [form for form in page.forms if form.method == "post"]
