"""What the benchmarks rest on: every contestant does its work, and no callback reads a table from end to end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from benchmarks.claims import measure_claims
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.databases import EXPLAINED, Database, WrongCount
from benchmarks.grown import grow
from benchmarks.growth import Host
from benchmarks.hosts import metadata
from benchmarks.plans import Statement, explain
from benchmarks.statements import count_statements

_ROWS = 2_000


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    yield from _made(database_url)


@pytest.fixture(params=EXPLAINED)
def explained(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database whose plans can be read."""
    yield from _made(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


def _made(url: str) -> Iterator[Database]:
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    yield Database(url, engine)
    engine.dispose()


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda one: one.name)
def test_each_contestant_answers_and_leaves_what_it_is_compared_by(database: Database, contestant: Contestant) -> None:
    count_statements(database, contestant)

    with database.engine.connect() as connection:
        task_ids = list(connection.scalars(sa.text("SELECT task_id FROM content_generation_tasks")))
    effects = task_ids if contestant.has_effects else []
    history = [] if contestant.verdict is None else [(task_id, contestant.verdict) for task_id in task_ids]
    database.check({contestant.status_after: task_ids}, effects=effects, history=history)
    with pytest.raises(WrongCount):
        database.check({contestant.status_after: task_ids}, effects=[*effects, "another"], history=history)


def test_no_callback_reads_a_table_from_beginning_to_end(explained: Database) -> None:
    grow(explained, _ROWS)
    host = Host(explained, _ROWS, 1)
    try:
        plans = host.plans()
    finally:
        host.close()

    assert len(plans) == 5
    assert [plan for kind in plans.values() for plan in kind if plan.scanned] == []


def test_a_statement_without_an_index_is_named(explained: Database) -> None:
    plan = explain(explained.engine, Statement("SELECT id FROM webhook_deliveries WHERE event = 'completed'", ()))

    assert plan.scanned == ["webhook_deliveries"]


def test_claims_are_measured_against_those_by_hand(database: Database) -> None:
    events, polls = measure_claims(database, rounds=2)

    assert (len(events.ours), len(polls.by_hand)) == (2, 2)
    assert events.statements <= events.statements_by_hand + 2
    assert polls.statements <= polls.statements_by_hand + 2
