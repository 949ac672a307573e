"""Random answers: each becomes a report or a creator error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.errors import CreatorError
from tests.support.creator_server import CUT, CreatorServer, answer
from tests.support.http_creator import ID, JOB

WIRE_NAMES = [
    "id",
    "taskId",
    "status",
    "error",
    "errorMessage",
    "message",
    "details",
    "fields",
    "path",
    "tasks",
    "content",
]
WIRE_NAMES += ["pagination", "total", "totalPages", "createdAt", "metrics", "duration", "stepsCompleted", "code"]


@pytest.fixture(scope="module")
def anything() -> Iterator[tuple[HttpCreator, CreatorServer]]:
    with CreatorServer(lambda _: CUT) as server:
        no_cooldown_lasts = count(step=200_000.0).__next__  # each look at the clock is two days later
        creator = HttpCreator(server.url, timeout=5, monotonic=no_cooldown_lasts)
        yield creator, server
        creator.close()


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WIRE_NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(
    status=st.sampled_from([200, 201, 202, 204, 301, 400, 404, 409, 429, 500, 503]),
    body=st.binary(max_size=40)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.booleans(), ANY_JSON).map(
        lambda both: json.dumps({"success": both[0], "data": both[1], "error": both[1]}).encode()
    ),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_creator_answers_is_a_report_or_a_creator_error(anything, status, body):
    creator, server = anything
    server.answer = lambda _: answer(status, body)

    for ask in (
        lambda: creator.submit(JOB, wait=5),
        lambda: creator.status(ID),
        lambda: creator.result(ID),
        lambda: creator.statuses([ID])[ID],
    ):
        with suppress(CreatorError, KeyError):
            report = ask()
            assert report.error is None or isinstance(report.error["message"], str)
            assert report.result is None or isinstance(report.result, dict)
