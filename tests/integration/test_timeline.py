"""Moments are found in the history by the primary key, whatever gaps there are among the ids."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.storage.id_search import DISORDER, first_id_since, received_within
from tests.support.host import Host


def rows(host: Host, seconds_by_id: dict[int, float]) -> None:
    """Deliveries with these ids, received so many seconds from now."""
    values = [
        {"id": row_id, "source": "webhook", "verdict": "processed", "received_at": at(host, seconds)}
        for row_id, seconds in seconds_by_id.items()
    ]
    with host.app.app_context():
        host.db.session.execute(sa.insert(host.state.delivery_model), values)
        host.db.session.commit()


def at(host: Host, seconds: float) -> datetime:
    return host.clock.now + timedelta(seconds=seconds)


def ids_received(host: Host, **between: Any) -> list[int]:
    model = host.state.delivery_model
    with host.app.app_context():
        session = host.db.session
        query = sa.select(model.id).where(*received_within(session, model, **between)).order_by(model.id)
        return list(session.scalars(query))


def test_every_moment_is_found_whatever_the_gaps(host):
    draw, model = random.Random(7), host.state.delivery_model
    for _ in range(15):
        ids = sorted(draw.sample(range(1, 300), draw.randrange(1, 40)))
        times = sorted(draw.randrange(100) for _ in ids)
        rows(host, dict(zip(ids, times, strict=True)))
        with host.app.app_context():
            for moment in range(-1, 102, 5):
                first = first_id_since(host.db.session, model, at(host, moment))
                expected = [row_id for row_id, time in zip(ids, times, strict=True) if time >= moment]
                assert [row_id for row_id in ids if row_id >= first] == expected
            host.db.session.execute(sa.delete(model))
            host.db.session.commit()


def test_an_empty_history_has_no_moments(host):
    with host.app.app_context():
        assert first_id_since(host.db.session, host.state.delivery_model, host.clock.now) == 0
    assert ids_received(host, after=at(host, -60), until=at(host, 60)) == []


def test_a_search_is_one_statement(host):
    rows(host, {row_id: row_id for row_id in range(1, 1000)})
    with host.statements() as statements, host.app.app_context():
        assert first_id_since(host.db.session, host.state.delivery_model, at(host, 500)) == 500
    assert len(statements) == 1


def test_times_that_follow_each_other_share_nothing_and_miss_nothing(host):
    rows(host, {row_id: 10 * row_id for row_id in range(1, 13)})
    assert ids_received(host, after=at(host, 0), until=at(host, 60)) == [1, 2, 3, 4, 5, 6]
    assert ids_received(host, after=at(host, 60)) == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("late", [-DISORDER.total_seconds() + 1, -1000])
def test_a_row_that_was_written_late_is_found(sqlite_host, late):
    """Among many by the time that is allowed for, among few by their number."""
    count = 5000 if late > -DISORDER.total_seconds() else 400
    rows(sqlite_host, {row_id: row_id for row_id in range(1, count)} | {count: count + late})
    moment = at(sqlite_host, count + late - 0.5)
    assert count in ids_received(sqlite_host, after=moment)
    assert len(ids_received(sqlite_host, after=moment)) == min(count, -late + 1)
