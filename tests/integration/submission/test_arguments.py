"""Arguments of `submit` that cannot be meant, or not be kept: a ValueError with their name, and no row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import GenerationTaskMixin
from flask_contenthub_webhook.errors import DeliveryNotFound, ForwardNotFound
from tests.support.submission import BASE, submit, sweep, with_own_creator

WRONG: list[tuple[str, Any]] = [
    *(("max_retries", value) for value in (10**12, 1001, -1, True, 1.5, "3")),
    *(("timeout", value) for value in (math.inf, -math.inf, math.nan, 10**400, 0, True, "60", 366 * 86400)),
    *(("priority", value) for value in (True, 0, 5, 2.0, "2", None, 10**5000)),
    *(("keywords", value) for value in ("tea", b"tea", {"tea": 1}, 7, ["tea", 7], [None])),
    *(("callback_events", value) for value in ("completed", None, [1])),
    *((name, value) for name in ("topic", "requirements", "target_audience", "tone") for value in (7, b"x", ["x"])),
    ("callback_url", 7),
    ("auto_approve", "yes"),
    ("auto_approve", 1),
    ("forward_to", "https://partner.example"),
    ("task_fields", [("account_id", 7)]),
    *(("task_fields", {name: 1}) for name in ("status", "task_id", "next_submit_at")),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=map(str, range(len(WRONG))))
def test_are_refused_by_name(sqlite_hub, name, value):
    with pytest.raises(ValueError, match=name):
        submit(sqlite_hub, **{name: value})
    assert sqlite_hub.tasks() == []


@pytest.mark.parametrize(
    "values",
    [
        {"max_retries": 0},
        {"max_retries": 1000},
        {"timeout": 1},
        {"timeout": 365 * 86400},
        {"timeout": 1.5},
        {"keywords": ()},
        {"keywords": {"tea"}},
        {"callback_events": ()},
        {"priority": 4, "auto_approve": True},
    ],
    ids=str,
)
def test_at_their_bounds_are_kept_and_handed_over(hub, values):
    task_id = submit(hub, **values)
    assert sweep(hub).outcomes == {"submitted": 1}
    assert hub.task(task_id).status == "submitted"


def _with_columns(db: SQLAlchemy) -> dict[str, type[Any]]:
    columns = {
        "small": mapped_column(sa.SmallInteger, nullable=True),
        "plain": mapped_column(sa.Integer, nullable=True),
        "big": mapped_column(sa.BigInteger, nullable=True),
    }
    return {"task_model": type("Task", (GenerationTaskMixin, db.Model), {"__tablename__": "tasks", **columns})}


@pytest.mark.parametrize(("column", "bits"), [("small", 15), ("plain", 31), ("big", 63)])
def test_numbers_for_the_hosts_columns_have_to_fit(hosts, database_url, column, bits):
    """An id of 2^63 was an OverflowError of SQLite's driver, and another one of each other database."""
    hub = with_own_creator(
        hosts(database_url, models=_with_columns, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
    )
    for value in (2**bits, -(2**bits) - 1):
        with pytest.raises(ValueError, match=rf"task_fields\['{column}'\]"):
            submit(hub, task_fields={column: value})
    for value in (2**bits - 1, -(2**bits)):
        assert getattr(hub.task(submit(hub, task_fields={column: value})), column) == value


@pytest.mark.parametrize("row_id", [2**63, 10**30, -1, 0])
def test_ids_that_no_row_can_have_are_not_found(hub, row_id):
    with hub.app.app_context():
        with pytest.raises(DeliveryNotFound):
            hub.webhook.replay(row_id)
        with pytest.raises(ForwardNotFound):
            hub.webhook.replay_forward(row_id)
