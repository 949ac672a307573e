"""The overview: what came by hour, what became of it, what waits, and what runs next."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.host import completed, failed, progress
from tests.support.long_history import write_history
from tests.support.pages import AT, Visitor, open_to_all

OVERVIEW = "flask_contenthub_webhook.contrib.dashboard.overview"


@pytest.fixture(autouse=True)
def half_past_nine(request):
    """The time of the tests on both databases."""
    if "visitor" in request.fixturenames:
        request.getfixturevalue("visitor").host.clock.now = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def add(host, count=1, **values):
    """Deliveries with these columns."""
    row = {"source": "webhook", "verdict": "processed", "received_at": host.clock(), **values}
    with host.app.app_context():
        host.db.session.add_all(host.state.delivery_model(**row) for _ in range(count))
        host.db.session.commit()


def table(page, heading, until):
    """The words of a part of the page."""
    return page.text.split(heading, 1)[1].split(until, 1)[0]


def hours(page):
    """The rows of the table by hour: accepted, duplicates, rejected, failed, dead."""
    rows = re.findall(r'<tr><th scope="row"><a [^>]*><time[^>]*>([^<]*)</time></a></th>(.*?)</tr>', page.html)
    return {at: [int(n.replace(",", "")) for n in re.findall(r">([\d,]+)<", cells)] for at, cells in rows}


def test_deliveries_are_counted_by_hour_and_kind(visitor):
    host = visitor.host
    hour = timedelta(hours=1)
    for ago, verdict, count in (
        (25, "processed", 9),
        (2, "processed", 3),
        (2, "stale", 1),
        (2, "queued", 1),
        (1, "duplicate", 2),
        (1, "failed", 1),
        (0, "dead", 1),
        (0, "replayed", 1),
    ):
        add(host, count, verdict=verdict, received_at=host.clock() - ago * hour)
    add(host, verdict="rejected", occurrences=1234)
    add(host, 5, source="host", event="submitted")

    page = visitor.see("/")
    counted = {at: counts for at, counts in hours(page).items() if any(counts)}

    assert counted == {
        "2026-11-24 07:00": [5, 0, 0, 0, 0],
        "2026-11-24 08:00": [0, 2, 0, 1, 0],
        "2026-11-24 09:00": [1, 0, 1234, 0, 1],
    }
    assert len(hours(page)) == 25
    assert "all 11 deliveries of this time" in page.text
    assert "1 of them stands for 1,234 refused requests, each of which is counted below." in page.text
    assert sum(map(sum, counted.values())) == 11 - 1 + 1234
    assert re.search(r"Success rate ?77.77 %", page.text)
    assert visitor.see("/?range=all").text.count("all 20 deliveries of this time") == 1


def test_the_chart_has_a_bar_for_every_number_and_a_name(visitor):
    for ago in range(3):
        add(visitor.host, received_at=visitor.host.clock() - timedelta(hours=ago))

    page = visitor.see("/?range=today")
    chart = next(attributes for name, attributes in page.elements if name == "svg")

    assert (chart["role"], chart["aria-labelledby"]) == ("group", "chart-name")
    assert "<title>accepted, 09:00: 1</title>" in page.html
    assert not page.names() & {"style", "desc"}
    assert {"rect", "path", "text"} <= page.names()


def test_tiles_and_bars_lead_to_what_they_count(visitor):
    host = visitor.host
    for verdict, ago, count in (("dead", 130, 1), ("stale", 70, 1), ("duplicate", 70, 2), ("processed", 10, 2)):
        add(host, count, verdict=verdict, received_at=host.clock() - timedelta(minutes=ago))
    add(host, 3, source="host", event="submitted")
    page = visitor.see("/")

    def counted(words):
        target = next(target for target, text in page.links if text == words)
        return len(visitor.see(target).ids)

    assert [counted(kind) for kind in ("accepted", "duplicates", "rejected", "failed", "dead")] == [3, 2, 0, 0, 1]
    assert [counted(f"2026-11-24 {hour}:00") for hour in ("09", "08", "07", "06")] == [2, 3, 1, 0]
    assert [counted(words) for words in ("1 accepted", "2 duplicates", "1 dead")] == [1, 2, 1]
    bars = [attributes for name, attributes in page.elements if attributes.get("tabindex") == "-1" and name == "a"]
    named = {bar["aria-label"]: bar["href"] for bar in bars}
    assert len(visitor.see(named["duplicates, 24 Nov 08:00: 2"]).ids) == 2
    assert len(visitor.see(named["all from 24 Nov 08:00 on"]).ids) == 3


def test_a_time_is_counted_from_and_to(visitor):
    for ago in reversed(range(10)):
        add(visitor.host, received_at=visitor.host.clock() - timedelta(hours=ago))

    page = visitor.see("/?from=2026-11-24T03:00&to=2026-11-24T06:00")

    assert list(hours(page)) == ["2026-11-24 05:00", "2026-11-24 04:00", "2026-11-24 03:00"]
    assert sum(map(sum, hours(page).values())) == 3
    assert page.forms[1].fields["from"] == "2026-11-24T03:00"
    assert len(visitor.see(next(target for target, text in page.links if text == "accepted")).ids) == 3
    assert "all 10 deliveries" in visitor.see("/?from=0001-01-01T00:00&to=9999-12-31T23:59").text
    assert "Nothing came in this time" in visitor.see("/?range=custom&to=0001-01-01T00:00").text
    wrong = visitor.see("/?from=yesterday&range=custom", status=400)
    assert "Write a date and a time" in wrong.text
    assert "svg" not in wrong.names()


@pytest.mark.parametrize(("days", "width"), [(1, "by hour"), (7, "by 6 h"), (60, "by 3 d"), (4000, "by 90 d")])
def test_a_longer_time_has_wider_bars(hosts, sqlite_url, days, width):
    visitor = Visitor(hosts(sqlite_url, after=open_to_all))
    for ago in (0, days):
        add(visitor.host, received_at=visitor.host.clock() - timedelta(days=ago))

    page = visitor.see("/?range=all")

    assert f"Deliveries {width}" in page.text
    assert sum(map(sum, hours(page).values())) == 2
    assert len(hours(page)) <= 49


def test_latencies_are_those_of_applied_callbacks(visitor):
    for ms in range(1, 101):
        add(visitor.host, latency_ms=float(ms))
    add(visitor.host, latency_ms=9999.0, source="poll")
    add(visitor.host, latency_ms=9999.0, verdict="duplicate")

    words = table(visitor.see("/"), "Latency", "How tasks")

    for name, ms in (("median", 50), ("90 %", 90), ("95 %", 95), ("99 %", 99), ("longest", 100)):
        assert re.search(rf"{name} ?{ms} ms", words), words
    assert "Of 100 applied callbacks" in words


def test_tasks_are_told_apart_by_what_completed_them(visitor):
    host = visitor.host
    tasks = [host.add_task(max_retries=0) for _ in range(3)]
    host.post(tasks[0], completed(tasks[0]))
    host.post(tasks[0], completed(tasks[0]))
    host.post(tasks[1], failed(tasks[1]))
    host.post(tasks[1], completed(tasks[1]))
    host.publisher.broken = True
    host.post(tasks[2], completed(tasks[2]))
    host.publisher.broken = False
    host.replay(host.deliveries(tasks[2])[0].id)
    for source, count in (("poll", 4), ("response", 5)):
        add(host, count, source=source, status_before="submitted", status_after="completed")
    add(host, source="poll", status_before="submitted", status_after="failed")

    words = table(visitor.see("/"), "How tasks were completed", "What waits")

    for way, count in (("webhook", 1), ("late webhook", 1), ("poll", 4), ("response", 5), ("replay", 1)):
        assert re.search(rf"(?<!late ){way} ?{count}\b", words), (way, words)


def test_what_waits_is_counted_with_the_time_when_it_is_due(visitor):
    host = visitor.host
    now = host.clock()
    host.add_task(status="pending", next_submit_at=now + timedelta(minutes=1), next_poll_at=now + timedelta(hours=1))
    host.add_task(next_poll_at=now - timedelta(minutes=1))
    add(host, 2, verdict="failed", next_retry_at=now + timedelta(minutes=3))
    add(host, verdict="queued", next_retry_at=now + timedelta(minutes=2))
    add(host, verdict="dead")

    page = visitor.see("/")
    words = table(page, "What waits", "Periodic jobs")

    for row in (
        "queued events1",
        "failed events2",
        "dead events1",
        "retries3 2026-11-24 09:32:00",
        "tasks to submit1 2026-11-24 09:31:00",
        "open tasks2 2026-11-24 09:29:00 due 1 min ago",
        "overdue tasks1",
        "forwards0",
        "dead forwards0",
    ):
        assert row.replace(" ", "") in words.replace(" ", ""), (row, words)
    assert page.link("dead events") == f"{AT}/deliveries?verdict=dead"
    assert visitor.see(page.link("dead events")).ids == [max(visitor.see("/deliveries").ids)]


def test_more_than_ten_thousand_are_not_counted_further(hosts, sqlite_url, monkeypatch):
    monkeypatch.setattr(f"{OVERVIEW}._MOST_COUNTED", 5)
    visitor = Visitor(hosts(sqlite_url, after=open_to_all))
    add(visitor.host, 20, verdict="dead")

    assert re.search(r"dead events ?6\b", visitor.see("/").text)


def test_raised_alerts_have_a_banner(visitor):
    host, alert = visitor.host, visitor.host.state.models.alert
    with host.app.app_context():
        raised = {"value": 0.173, "sample": 52, "checked_at": host.clock(), "changed_at": host.clock()}
        host.db.session.add_all(
            [alert(name="failure_rate", raised=True, **raised), alert(name="silence", raised=False)]
        )
        host.db.session.commit()

    page = visitor.see("/")

    assert "The handlers failed at 17.3% of 52 events within 5 min (limit: 10.0%)." in page.text
    assert "silence" not in page.text


def test_the_next_runs_are_those_of_a_scheduler_in_this_process(hosts, sqlite_url):
    visitor = Visitor(hosts(sqlite_url, after=open_to_all))
    app = visitor.host.app
    assert "This process runs none." in visitor.see("/").text

    visitor.host.webhook.start_scheduler(app)
    try:
        words = visitor.see("/").text.split("Periodic jobs")[1]
    finally:
        visitor.host.webhook.stop_scheduler(app)

    for job in ("reconcile", "submit", "retry-deliveries", "purge"):
        assert re.search(rf"{job} ?20\d\d-", words), words
    assert "This process runs none." in visitor.see("/").text


def test_an_empty_history_has_an_overview(visitor):
    for range_ in ("hour", "today", "day", "week", "all"):
        page = visitor.see(f"/?range={range_}")
        assert "Nothing came in this time." in page.text
        assert "svg" not in page.names()
    assert visitor.get("/?range=nothing").status_code == 400


def test_it_takes_a_bounded_number_of_statements(visitor):
    write_history(visitor.host, 200, lasting=timedelta(hours=10))
    visitor.host.post(visitor.host.add_task(task_id="x"), progress("x", 1))

    with visitor.host.statements() as statements:
        visitor.see("/")

    assert len([statement for statement in statements if statement != "COMMIT"]) <= 8
