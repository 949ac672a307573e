"""The list of deliveries: filters, paging both ways, bounded searches, and the rows that come while one looks."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook.creators import Creators, HttpCreator
from tests.support.databases import KINDS
from tests.support.host import completed, failed, make_host, progress
from tests.support.long_history import task_id_of, write_history
from tests.support.pages import AT, Visitor, open_to_all, plans
from tests.support.plans import whole_tables

SEARCH = "flask_contenthub_webhook.contrib.dashboard.search"
COUNT = 230


@pytest.fixture(scope="module", params=KINDS)
def history(request, new_database):
    """A visitor with a history of 230 deliveries over 23 hours, for tests that change nothing in it."""
    host = make_host(new_database(request.param), after=open_to_all)
    write_history(host, COUNT, lasting=timedelta(hours=23))
    yield Visitor(host)
    host.close()


@pytest.fixture
def growing_history(visitor):
    """The same, for a test that changes it."""
    write_history(visitor.host, COUNT, lasting=timedelta(hours=23))
    return visitor


def listed(visitor, **query):
    return visitor.see(f"/deliveries?{urlencode(query, doseq=True)}").ids


class TestFilters:
    @pytest.fixture
    def events(self, visitor):
        """Deliveries 1 to 5: progress, completed, its copy, a failure, and a refused one."""
        host = visitor.host
        one, two = host.add_task(), host.add_task(max_retries=0)
        host.post(one, progress(one, 10))
        host.post(one, completed(one))
        host.post(one, completed(one))
        host.post(two, failed(two))
        host.post(two, b"no json")
        return one, two

    def test_each_narrows(self, visitor, events):
        for query, found in (
            ({}, [5, 4, 3, 2, 1]),
            ({"event": "completed"}, [3, 2]),
            ({"event": " completed "}, [3, 2]),
            ({"verdict": "duplicate"}, [3]),
            ({"verdict": ["rejected", "duplicate"]}, [5, 3]),
            ({"source": "poll"}, []),
            ({"source": "webhook", "event": "progress"}, [1]),
            ({"task": events[1]}, [5, 4]),
            ({"task": events[0], "verdict": "processed"}, [2, 1]),
            ({"task": "nobody"}, []),
            ({"text": "正文"}, [3, 2]),
            ({"text": "no json"}, [5]),
            ({"text": "NO JSON"}, []),
            ({"text": "正文", "verdict": "duplicate"}, [3]),
            ({"text": 'tent":"# 键'}, [3, 2]),
            ({"text": "键\n\n正文"}, [3, 2]),
        ):
            assert listed(visitor, **query) == found, query

    def test_a_delivery_is_found_by_what_its_task_and_its_error_say(self, visitor):
        host = visitor.host
        tea, coffee = host.add_task(topic="Green Tea 100%"), host.add_task(topic="Coffee")
        host.post(tea, progress(tea, 10))
        host.post(coffee, progress(coffee, 10))
        host.publisher.broken = True
        host.post(coffee, completed(coffee))
        host.post(tea, b"no json")
        first, _, broken, refused = (row.id for row in host.deliveries())

        for query, found in (
            ({"topic": "tea"}, [refused, first]),
            ({"topic": "100%"}, [refused, first]),
            ({"topic": "%"}, [refused, first]),
            ({"topic": "_"}, []),
            ({"error": "brokenhandler"}, [broken]),
            ({"error": "invalid_json"}, [refused]),
            ({"error": "json", "topic": "coffee"}, []),
            ({"answer": "500"}, [broken]),
            ({"answer": "400"}, [refused]),
            ({"answer": "404"}, []),
        ):
            assert listed(visitor, **query) == found, query

    def test_a_service_has_its_own_deliveries(self, hosts, sqlite_url):
        writer, painter = (HttpCreator(f"http://{name}.example") for name in ("writer", "painter"))
        creators = Creators(writer=writer, painter=painter)
        visitor = Visitor(hosts(sqlite_url, models=lambda _: {"creator": creators}, after=open_to_all))
        for number, name in enumerate(("writer", "painter", None), 1):
            visitor.host.add_task(task_id=f"t{number}", creator_name=name)
            visitor.host.post(f"t{number}", progress(f"t{number}", 10))

        assert listed(visitor, service="painter") == [2]
        assert listed(visitor, service="writer") == [3, 1]
        assert visitor.get("/deliveries?service=nobody").status_code == 400
        assert "3 deliveries would be replayed" in visitor.see("/replay?event=progress").text
        assert "1 delivery would be replayed" in visitor.see("/replay?service=painter").text

    def test_its_address_has_nothing_that_is_empty(self, visitor):
        answer = visitor.get("/deliveries?task=&event=completed&from=&to=&range=all&text=")

        assert (answer.status_code, answer.location) == (303, f"{AT}/deliveries?event=completed")
        assert visitor.get("/replay?task=&event=completed").location == f"{AT}/replay?event=completed"

    def test_a_text_is_found_however_json_writes_it(self, visitor):
        task_id = visitor.host.add_task()
        visitor.host.post(task_id, json.dumps(completed(task_id, 'say "正文"')).encode())

        assert listed(visitor, text='say "正文"') == [1]

    def test_times_narrow_by_preset_or_from_and_to(self, visitor):
        host = visitor.host
        host.clock.now = datetime(2026, 11, 24, 12, tzinfo=UTC)
        task_id = host.add_task()
        for ago in (200 * 3600, 30 * 3600, 13 * 3600, 7200, 0):
            host.clock.now -= timedelta(seconds=ago)
            host.post(task_id, progress(task_id, 10))
            host.clock.now += timedelta(seconds=ago)

        for query, found in (
            ({"range": "hour"}, [5]),
            ({"range": "today"}, [5, 4]),
            ({"range": "day"}, [5, 4, 3]),
            ({"range": "week"}, [5, 4, 3, 2]),
            ({"range": "all"}, [5, 4, 3, 2, 1]),
            ({"range": "custom", "from": "2026-11-23T00:00", "to": "2026-11-24T00:00"}, [3, 2]),
            ({"from": "2026-11-23T12:00"}, [5, 4, 3]),
            ({"to": "2026-11-23T22:59:59+00:00"}, [2, 1]),
            ({"from": "2026-11-23T23:00+01:00", "to": "2026-11-23T23:00:01Z"}, [3]),
            ({"from": "0001-01-01T00:00", "to": "9999-12-31T23:59"}, [5, 4, 3, 2, 1]),
            ({"from": "9999-12-31T23:59"}, []),
        ):
            assert listed(visitor, **query) == found, query

    def test_one_that_cannot_be_used_shows_nothing_instead_of_too_much(self, history):
        for query in (
            {"verdict": "nonsense"},
            {"source": "<script>"},
            {"range": "eternity"},
            {"from": "yesterday"},
            {"from": "2026-11-24T08:00", "to": "2026-11-24T08:00"},
            {"task": "x" * 256},
            {"event": "a\0b"},
            {"answer": "abc"},
            {"text": "x" * 201},
        ):
            for path in ("/deliveries", "/replay"):
                page = history.see(f"{path}?{urlencode(query)}", status=400)
                assert page.ids == [], query
                assert not [form for form in page.forms if form.method == "post"], query
            assert history.get(f"/deliveries/new?after=0&{urlencode(query)}").status_code == 400

    def test_the_form_shows_what_was_chosen(self, history):
        given = {"task": '"><b>', "verdict": ["dead", "failed"], "source": "poll", "range": "week", "text": "<&>'"}
        page = history.see(f"/deliveries?{urlencode(given, doseq=True)}")

        fields = page.forms[-1].fields
        assert (fields["task"], fields["text"]) == ('"><b>', "<&>'")
        chosen = [attributes.get("value") for _, attributes in page.elements if "checked" in attributes]
        assert chosen == ["failed", "dead", "poll"]
        assert 'value="week" selected' in page.html

    def test_cursors_that_are_none_are_left_alone(self, history):
        for before in ("", "x", "-1", "1e3", "٣", "9" * 30):
            assert history.see(f"/deliveries?{urlencode({'before': before})}").ids[0] == COUNT


class TestPaging:
    def test_older_pages_lead_to_the_first_delivery_and_newer_ones_back(self, history):
        down = [page.ids for page in history.walk("/deliveries", "Older")]
        assert [i for ids in down for i in ids] == list(range(COUNT, 0, -1))
        assert [len(ids) for ids in down] == [50, 50, 50, 50, 30]

        last = history.see(f"/deliveries?before={down[-1][0] + 1}")
        up = [page.ids for page in history.walk(last.link("Newer"), "Newer")]
        assert [i for ids in up[::-1] for i in ids] == list(range(COUNT, 30, -1))

    def test_with_a_filter_it_is_the_same_walk(self, history):
        wanted = [i for i in range(COUNT, 0, -1) if i % 5 == 0]

        down = [i for page in history.walk("/deliveries?event=progress&range=day", "Older") for i in page.ids]
        pages = list(history.walk("/deliveries?event=progress&after=1", "Newer"))

        assert down == wanted
        assert [i for page in pages[::-1] for i in page.ids] == wanted

    def test_a_gap_in_the_numbers_is_passed(self, growing_history):
        history = growing_history
        with history.host.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM webhook_deliveries WHERE id BETWEEN 20 AND 200"))

        found = [i for page in history.walk("/deliveries", "Older") for i in page.ids]

        assert found == [*range(COUNT, 200, -1), *range(19, 0, -1)]

    def test_a_search_that_looked_through_enough_says_so_and_goes_on(self, history, monkeypatch):
        monkeypatch.setattr(f"{SEARCH}.MOST_ROWS", 60)

        first = history.see("/deliveries?verdict=rejected")
        down = list(history.walk("/deliveries?verdict=rejected", "Search further back"))
        up = list(history.walk("/deliveries?verdict=rejected&after=0", "Search further on"))

        assert "The search stopped after 60 rows" in first.text
        assert [page.ids for page in down] == [[225, 200, 175], [150, 125], [100, 75], [50, 25]]
        assert [i for page in up[::-1] for i in page.ids] == list(range(225, 0, -25))
        assert down[-1].link("Older") is None

    def test_of_one_task_or_of_unsettled_ones_all_are_found_at_once(self, history, monkeypatch):
        monkeypatch.setattr(f"{SEARCH}.MOST_ROWS", 20)

        assert listed(history, task=task_id_of(1)) == [4, 3, 2, 1]
        assert listed(history, verdict=["dead", "failed"]) == [1]
        assert listed(history, verdict="dead", task=task_id_of(1)) == [1]

    def test_a_host_without_the_index_searches_all_the_same(self, hosts, database_url, monkeypatch):
        monkeypatch.setattr(f"{SEARCH}.MOST_ROWS", 100)
        visitor = Visitor(hosts(database_url, db=SQLAlchemy(), after=open_to_all))
        table = visitor.host.state.delivery_model.__table__
        others = {index for index in table.indexes if "unsettled" not in str(index.name)}
        monkeypatch.setattr(table, "indexes", others)
        write_history(visitor.host, COUNT)

        pages = list(visitor.walk("/deliveries?verdict=dead", "Search further back"))

        assert [page.ids for page in pages] == [[], [], [1]]

    def test_bodies_are_looked_through_in_bounded_pieces(self, history, monkeypatch):
        monkeypatch.setattr(f"{SEARCH}._MOST_BYTES", 40 * 1100)

        first = history.see("/deliveries?text=n3%22")
        pages = list(history.walk("/deliveries?text=n3%22", "Search further back"))
        up = list(history.walk("/deliveries?text=n3%22&after=0", "Search further on"))

        assert "MB of bodies" in first.text
        assert len(pages) == len(up) == 7
        assert [i for page in pages for i in page.ids] == [3]
        assert [i for page in up for i in page.ids] == [3]

    def test_a_body_that_is_too_much_alone_is_looked_through_all_the_same(self, history, monkeypatch):
        monkeypatch.setattr(f"{SEARCH}._MOST_BYTES", 10)

        assert listed(history, text="n230") == [230]
        assert history.see("/deliveries?text=n229").link("further back") is not None
        assert [i for page in history.walk("/deliveries?text=n226", "Search further back") for i in page.ids] == [226]

    def test_times_out_of_order_by_minutes_are_found(self, visitor):
        host, task_id = visitor.host, visitor.host.add_task()
        now = host.clock.now
        for minutes in (-120, -59, -61, -58, -62, -30):
            host.clock.now = now + timedelta(minutes=minutes)
            host.post(task_id, progress(task_id, 10))
        host.clock.now = now

        assert listed(visitor, range="hour") == [6, 4, 2]


class TestBounds:
    QUERIES = (
        "",
        "?before=100",
        "?after=100",
        "?event=progress&range=week",
        f"?task={task_id_of(9)}",
        "?verdict=dead&verdict=failed",
        "?verdict=rejected&from=2020-01-01T00:00&to=2099-01-01T00:00",
        "?text=nowhere&verdict=processed&range=day",
    )

    def test_the_number_of_statements_does_not_grow_with_the_rows(self, history):
        for query in self.QUERIES:
            with history.host.statements() as few:
                history.see(f"/deliveries{query}")
            assert len([statement for statement in few if statement != "COMMIT"]) <= 6, query

    def test_no_list_reads_a_body(self, history):
        for path in ("/deliveries", "/deliveries?text=n3", "/deliveries/new?after=100", f"/task?id={task_id_of(9)}"):
            with history.host.statements() as statements:
                history.see(path)
            for statement in statements:
                assert not re.search(r"headers|body AS|body FROM", statement), statement

    def test_every_statement_finds_its_rows_by_an_index(self, history, monkeypatch):
        monkeypatch.setattr(f"{SEARCH}.MOST_ROWS", 20)
        monkeypatch.setattr(f"{SEARCH}._MOST_ROWS_WITH_TEXT", 20)
        for query in self.QUERIES:
            for statement, plan in plans(history, f"/deliveries{query}", small=True):
                assert "webhook_deliveries" not in whole_tables(plan), (statement, plan)


class TestLive:
    def test_new_deliveries_come_as_rows_for_the_table(self, growing_history):
        history = growing_history
        page = history.see("/deliveries")
        body = next(attributes for _, attributes in page.elements if "data-live" in attributes)
        assert (body["data-live"], body["data-newest"]) == (f"{AT}/deliveries/new", str(COUNT))

        assert history.get(f"/deliveries/new?after={COUNT}").status_code == 204
        task_id = history.host.add_task(task_id="new")
        history.host.post(task_id, progress(task_id, 10))
        history.host.post(task_id, completed(task_id))
        fresh = history.see(f"/deliveries/new?after={COUNT}")

        assert len(fresh.ids) == 2
        assert fresh.ids == sorted(fresh.ids, reverse=True)
        assert "<html" not in fresh.html

    def test_the_filter_holds_for_them_too(self, history):
        page = history.see("/deliveries?event=progress&verdict=duplicate")
        address = next(attributes["data-live"] for _, attributes in page.elements if "data-live" in attributes)

        assert history.see(f"{address}&after=205").ids == [230, 220, 210]
        assert history.see(f"{AT}/deliveries/new?event=completed&after=225").ids == [229, 228, 227, 226]

    def test_at_most_one_page_of_them(self, history):
        assert history.see("/deliveries/new?after=0").ids == list(range(COUNT, COUNT - 50, -1))

    def test_only_the_first_page_of_a_time_without_end_is_live(self, history):
        for query, is_live in (("", True), ("?range=hour", True), ("?before=100", False), ("?to=2099-01-01", False)):
            assert ("data-live" in history.see(f"/deliveries{query}").html) == is_live, query

    def test_without_javascript_there_is_a_link(self, history):
        assert history.see("/deliveries?event=progress").link("Refresh") == f"{AT}/deliveries?event=progress"


def test_an_empty_history_says_so(visitor):
    page = visitor.see("/deliveries")

    assert "No callback has come yet." in page.text
    assert "data-live" in page.html


def test_models_with_other_column_names_are_read_by_attribute(hosts, database_url):
    from flask_contenthub_webhook import DeliveryMixin

    def models(db):
        columns = {"verdict": sa.orm.mapped_column("outcome", sa.String(16)), "__tablename__": "callbacks"}
        return {"delivery_model": type("Callback", (DeliveryMixin, db.Model), columns)}

    visitor = Visitor(hosts(database_url, models=models, after=open_to_all))
    task_id = visitor.host.add_task()
    visitor.host.publisher.broken = True
    visitor.host.post(task_id, completed(task_id))

    (failed_one,) = visitor.host.deliveries()
    assert listed(visitor, verdict="failed") == [failed_one.id]
    assert listed(visitor, verdict="processed") == []
    assert visitor.see("/").link("failed events") == f"{AT}/deliveries?verdict=failed"


def test_find_leads_to_a_delivery_or_a_task(history):
    for typed, target in (
        ("17", "/deliveries/17"),
        ("", "/deliveries"),
        ("a b/../c", "/task?id=a+b/../c"),
        ("9" * 30, f"/task?id={'9' * 30}"),
    ):
        assert history.get(f"/find?{urlencode({'q': typed})}").location == AT + target
