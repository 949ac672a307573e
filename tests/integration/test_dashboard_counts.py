"""The counts of a long history: exact, whatever happens to deliveries that were counted before."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.contrib.dashboard.counts import counts_of
from flask_contenthub_webhook.operations.purge import purge_regularly
from tests.support.host import completed, progress
from tests.support.long_history import write_history
from tests.support.pages import Visitor, open_to_all

COUNTS = "flask_contenthub_webhook.contrib.dashboard.counts"
COUNT = 200


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(f"{COUNTS}.BLOCK", 16)
    monkeypatch.setattr(f"{COUNTS}.MOST_BLOCKS", 100)
    monkeypatch.setattr(f"{COUNTS}.FIRST_BLOCKS", 100)


@pytest.fixture
def visitor(hosts, database_url):
    """A visitor of a history of twenty hours, on each kind of database."""
    host = hosts(database_url, after=open_to_all)
    write_history(host, COUNT, lasting=timedelta(hours=20))
    update(host, verdict="processed", to="failed", limit=6)
    update(host, verdict="processed", to="dead", limit=3)
    return Visitor(host)


def shown(page):
    """The tiles: the number of each kind."""
    tiles = re.findall(r'k-(\w+)"><dt>.*?</dt><dd>([\d,]+)</dd>', page.html)
    return {kind: int(number.replace(",", "")) for kind, number in tiles}


def in_the_table(host, since=None):
    """The same, from every row."""
    verdicts = {"duplicate": "duplicates", "rejected": "rejected", "failed": "failed", "dead": "dead"}
    kinds = dict.fromkeys(("accepted", "duplicates", "rejected", "failed", "dead"), 0)
    for row in host.deliveries():
        if row.source != "host" and (since is None or row.received_at >= since):
            kinds[verdicts.get(row.verdict, "accepted")] += row.occurrences
    return kinds


def update(host, *, verdict, to, limit=1):
    """Change the verdict of some deliveries, oldest first, as a replay or a try does; give their ids."""
    model = host.state.delivery_model
    with host.app.app_context():
        ids = list(
            host.db.session.scalars(sa.select(model.id).where(model.verdict == verdict).order_by(model.id).limit(limit))
        )
        host.db.session.execute(sa.update(model).where(model.id.in_(ids)).values(verdict=to))
        host.db.session.commit()
    return ids


def test_the_second_look_has_the_same_numbers_from_memory(visitor):
    first, second = (shown(visitor.see("/?range=all")) for _ in range(2))

    assert first == second == in_the_table(visitor.host)
    assert len(counts_of(visitor.host.app).blocks) > 8


def test_what_was_settled_since_is_counted_as_it_is_now(visitor):
    host = visitor.host
    visitor.see("/?range=all")
    for verdict, to in (("dead", "replayed"), ("failed", "processed"), ("failed", "dead")):
        assert update(host, verdict=verdict, to=to)
        assert shown(visitor.see("/?range=all")) == in_the_table(host), (verdict, to)


def test_what_comes_and_what_a_replay_makes_of_it_is_counted(visitor):
    host, task_id = visitor.host, visitor.host.add_task()
    visitor.see("/?range=all")
    host.publisher.broken = True
    host.post(task_id, completed(task_id))
    host.publisher.broken = False
    assert shown(visitor.see("/?range=all")) == in_the_table(host)
    host.replay(host.deliveries(task_id)[0].id)
    host.post(host.add_task(), b"no json")
    assert shown(visitor.see("/?range=all")) == in_the_table(host)


@pytest.mark.parametrize("by", ["hand", "the job"])
def test_after_a_purge_everything_is_counted_anew(visitor, by):
    host = visitor.host
    visitor.see("/?range=all")
    with host.app.app_context():
        if by == "hand":
            host.webhook.purge(before=host.clock() - timedelta(hours=10), verdicts=("processed",))
        else:
            host.clock.advance(timedelta(days=90, hours=-10).total_seconds())
            assert purge_regularly(host.state)

    assert shown(visitor.see("/?range=all")) == in_the_table(host)


@pytest.mark.parametrize("hours", [1, 5, 12])
def test_a_period_begins_within_a_block(visitor, hours):
    host = visitor.host
    visitor.see("/?range=all")
    since = (host.clock() - timedelta(hours=hours)).replace(microsecond=0)

    page = visitor.see(f"/?from={since:%Y-%m-%dT%H:%M:%S}")

    assert shown(page) == in_the_table(host, since)


def test_what_is_too_much_for_one_request_is_counted_from_its_newest_end_and_goes_on(visitor, monkeypatch):
    monkeypatch.setattr(f"{COUNTS}.MOST_BLOCKS", 5)
    monkeypatch.setattr(f"{COUNTS}.FIRST_BLOCKS", 2)
    page = visitor.see("/?range=all")
    assert "there were more before" in page.text
    assert sum(shown(page).values()) <= 2 * 16
    seen = [sum(shown(page).values())]
    while page.link("Count further"):
        page = visitor.see(page.link("Count further"))
        seen.append(sum(shown(page).values()))

    assert seen == sorted(set(seen))
    assert shown(page) == in_the_table(visitor.host)


def test_where_nothing_can_be_remembered_the_page_does_not_offer_to_go_on(visitor, monkeypatch):
    monkeypatch.setattr(f"{COUNTS}.FIRST_BLOCKS", 2)
    monkeypatch.setattr(f"{COUNTS}.has_unsettled_index", lambda _: False)

    page = visitor.see("/?range=all")

    assert "there were more before" in page.text
    assert not page.link("Count further")


def test_the_newest_two_hours_are_never_remembered(visitor):
    host, task_id = visitor.host, visitor.host.add_task()
    for number in range(40):
        host.post(task_id, progress(task_id, number))
    visitor.see("/?range=all")

    newest = max(counts_of(host.app).blocks)
    assert host.delivery(newest + 15).received_at < host.clock() - timedelta(hours=2)
