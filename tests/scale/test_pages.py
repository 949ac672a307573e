"""Every history page over a long history: how long the server takes, how many statements, and by which plans.

``PAGES_DELIVERIES=1000000 python -m pytest tests/scale/test_pages.py -rP`` is the full run, which also holds every page
to its 150 ms; without it the history is short. The figures are ratios to a one-row lookup by the primary key, taken in
the same run over the same connection.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.storage.queries import reading
from tests.support.databases import KINDS
from tests.support.host import make_host
from tests.support.long_history import task_id_of, write_history
from tests.support.pages import Visitor, open_to_all, plans
from tests.support.plans import whole_tables
from tests.support.web_server import figure

FULL = 1_000_000
COUNT = int(os.environ.get("PAGES_DELIVERIES", "5000"))
IS_FULL = COUNT >= FULL
MOST_MS = 150
MOST_RATIO = 2_000
"""A page may look through 20,000 rows, and is put into words after that: a tenth of a lookup for each row is plenty."""
MOST_STATEMENTS = 8
MIDDLE = COUNT // 2
TO = datetime.now(UTC) - timedelta(days=10)
FROM = TO - timedelta(hours=6)

PAGES = (
    "/",
    "/?range=hour",
    "/?range=today",
    "/?range=week",
    "/?range=all",
    f"/?from={FROM:%Y-%m-%dT%H:%M}&to={TO:%Y-%m-%dT%H:%M}",
    "/deliveries",
    f"/deliveries?before={MIDDLE}",
    f"/deliveries?after={MIDDLE}",
    "/deliveries?range=hour",
    "/deliveries?range=custom&from=2000-01-01T00:00&to=2001-01-01T00:00",
    f"/deliveries?task={task_id_of(MIDDLE)}",
    "/deliveries?event=progress&verdict=duplicate&source=webhook&range=week",
    "/deliveries?verdict=dead",
    "/deliveries?verdict=dead&verdict=failed&verdict=queued&event=nothing",
    "/deliveries?verdict=replayed",
    "/deliveries?event=nothing&range=all",
    f"/deliveries?event=nothing&before={MIDDLE}",
    f"/deliveries?event=nothing&after={MIDDLE}",
    "/deliveries?error=nothing",
    "/deliveries?topic=nothing",
    "/deliveries?topic=Tea&verdict=duplicate&range=week",
    "/deliveries?text=nowhere",
    "/deliveries?text=nowhere&verdict=duplicate&range=week",
    f"/deliveries/new?after={COUNT - 30}",
    f"/deliveries/new?after={COUNT - 30}&event=nothing&text=nowhere",
    f"/deliveries/{MIDDLE}",
    f"/deliveries/{MIDDLE // 100 * 100}",
    f"/deliveries/{MIDDLE}/body",
    f"/task?id={task_id_of(MIDDLE)}",
    "/task?id=nobody",
    "/tasks",
    "/tasks?show=overdue",
    "/tasks?show=failed",
    "/tasks?show=all",
    f"/task/cancel?id={task_id_of(MIDDLE)}",
    "/forwards",
    "/forwards?status=dead",
    "/forwards?status=waiting&like=10",
    "/replay?verdict=dead",
    "/replay?event=completed&source=webhook",
    "/replay?range=week&verdict=rejected",
    "/replay?text=nowhere",
)

pytestmark = pytest.mark.timeout(1800 if IS_FULL else 300)


@pytest.fixture(scope="module", params=KINDS)
def visitor(request, new_database):
    """A visitor of the pages over the long history."""
    host = make_host(new_database(request.param), after=open_to_all)
    began = time.monotonic()
    write_history(host, COUNT, lasting=timedelta(days=30))
    figure(f"{request.param}: {COUNT:,} deliveries written in {time.monotonic() - began:.1f} s")
    yield Visitor(host)
    host.close()


def milliseconds(work, times):
    """The median duration of something that is done a few times, after it was done once."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def test_every_page_is_quick_and_takes_a_bounded_number_of_statements(visitor):
    state, model = visitor.host.state, visitor.host.state.delivery_model
    one_row = sa.select(model.id, model.verdict).where(model.id == MIDDLE)

    def look_up():
        with reading(state.database) as read:
            assert read.row(one_row)

    lookup = milliseconds(look_up, 50)
    lines, slow = [f"one-row lookup: {lookup:.2f} ms"], []
    for path in PAGES:
        with visitor.host.statements() as statements:
            answer = visitor.get(path)
        assert answer.status_code in {200, 204, 404, 409}, path
        count = len([statement for statement in statements if statement != "COMMIT"])
        took = milliseconds(lambda path=path: visitor.get(path), 7 if IS_FULL else 1)
        lines.append(f"{took:7.1f} ms = {took / lookup:5.0f} lookups, {count} statements: {path}")
        is_slow = took > MOST_RATIO * lookup or took > MOST_MS
        if count > MOST_STATEMENTS or (IS_FULL and is_slow):  # one look at a small history times the machine
            slow.append(lines[-1])
    figure("\n".join(lines))

    assert not slow, "\n".join(slow)


def test_no_page_reads_a_whole_table(visitor):
    for path in PAGES:
        for statement, plan in plans(visitor, path, small=not IS_FULL):
            assert not whole_tables(plan), f"{path}\n{statement}\n{plan}"
