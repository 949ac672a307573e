"""A first visit: an empty page says how to send a test event, and has a button that does it."""

from __future__ import annotations

import pytest

from tests.support.pages import AT, Visitor, open_to_all


def test_an_empty_page_has_a_button(visitor):
    for path in ("/deliveries", "/?range=all"):
        page = visitor.see(path)
        assert "No callback has come yet." in page.text
        assert "flask webhook send TASK_ID" in page.text
        assert [form for form in page.forms if form.action == f"{AT}/test-event"]
    assert visitor.see("/").link("send a test event") == f"{AT}/deliveries"
    assert "No callback has come yet." not in visitor.see("/deliveries?event=x").text


@pytest.mark.parametrize("schemes", ["url", "contenthub", "standard", "github"])
def test_the_test_event_arrives_and_changes_nothing_but_the_history(hosts, sqlite_url, schemes):
    visitor = Visitor(hosts(sqlite_url, after=open_to_all, WEBHOOK_SIGNATURE_SCHEMES=(schemes,)))

    answer = visitor.submit(visitor.see("/deliveries"), "test-event")

    assert answer.status_code == 303
    page = visitor.see(answer.location)
    assert "The test event came through" in page.text
    (row,) = visitor.host.deliveries()
    assert page.ids == [row.id]
    assert (row.verdict, row.error, row.scheme) == ("rejected", "task_not_found", schemes)
    assert visitor.host.tasks() == []
    assert visitor.host.contents() == []


def test_what_stands_in_its_way_is_said(hosts, sqlite_url):
    visitor = Visitor(hosts(sqlite_url, after=open_to_all, WEBHOOK_ENABLED=False))

    page = visitor.see(visitor.submit(visitor.see("/deliveries"), "test-event").location)

    assert "The test event did not come through: the answer was webhook_disabled" in page.text


def test_another_site_cannot_send_one(visitor):
    page = visitor.see("/deliveries")

    assert visitor.submit(page, "test-event", headers={"Origin": "https://evil.example"}).status_code == 403
    assert visitor.client.post(f"{AT}/test-event").status_code == 403
    assert visitor.host.deliveries() == []


def test_without_a_key_there_is_no_button(hosts, sqlite_url):
    visitor = Visitor(hosts(sqlite_url, after=open_to_all, SECRET_KEY=...))

    page = visitor.see("/deliveries")

    assert "No callback has come yet." in page.text
    assert not [form for form in page.forms if form.method == "post"]
