"""`flask webhook forwards`: listing, paging, showing try by try, replaying."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.cli.conftest import run, run_json
from tests.support.host import Host

SECRET = "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw=="


@pytest.fixture
def hub(hosts: Callable[..., Host], sqlite_url: str) -> Host:
    """Forwards 1 (delivered), 2 (dead, after two tries), 3 (waiting)."""
    host = hosts(sqlite_url, WEBHOOK_FORWARD_SECRET=SECRET, WEBHOOK_SUBMIT_THREADS=0)
    forwards, attempts = host.state.outbox.forwards.model, host.state.outbox.attempts.model
    now = host.clock.now
    common = {
        "task_id": "t1",
        "event": "completed",
        "delivery_id": 7,
        "message_id": "msg_1",
        "body": b'{"event":"completed","x":"\\u001b[31m"}',
        "created_at": now,
    }
    older = {"task_id": "t2", "event": "failed", "delivery_id": 8, "created_at": now - timedelta(hours=3)}
    tried = {"number": 1, "started_at": now, "duration_ms": 12.4, "address": "203.0.113.7"}
    error = "The receiver answered 503: \x1b[31mbusy."
    with host.app.app_context():
        host.db.session.add_all(
            [
                forwards(
                    **common, status="delivered", tries=1, finished_at=now, url="https://one.example/hook?key=SECRET"
                ),
                forwards(**common | older, status="dead", tries=2, finished_at=now, url="https://two.example/"),
                forwards(**common, status="waiting", tries=0, next_try_at=now, url="https://two.example/"),
                attempts(**tried, forward_id=1, status_code=200),
                attempts(**tried, forward_id=2, status_code=503, error=error),
                attempts(**tried | {"number": 2, "address": None}, forward_id=2, error="no answer within 10 s"),
            ]
        )
        host.db.session.commit()
    return host


def ids(host: Host, *arguments: object) -> list[int]:
    return [forward["id"] for forward in run_json(host, "forwards", "list", *arguments)["forwards"]]


def statuses(host: Host) -> list[str]:
    forwards = host.state.outbox.forwards.model
    with host.app.app_context():
        return list(host.db.session.scalars(sa.select(forwards.status).order_by(forwards.id)))


def test_filters(hub):
    for arguments, found in (
        ([], [3, 2, 1]),
        (["--task", "t1"], [3, 1]),
        (["--delivery", 8], [2]),
        (["--event", "failed"], [2]),
        (["--event", "failed", "--event", "completed"], [3, 2, 1]),
        (["--status", "dead"], [2]),
        (["--status", "dead", "--status", "waiting"], [3, 2]),
        (["--url", "https://two.example"], [3, 2]),
        (["--url", "https://t_o.example"], []),
        (["--since", "1h"], [3, 1]),
        (["--before", 3, "--limit", 1], [2]),
    ):
        assert ids(hub, *arguments) == found, arguments


def test_the_list_shows_what_matters_and_no_query_of_a_url(hub):
    shown = run(hub, "forwards", "list", "--limit", 2).stdout

    assert "https://two.example/" in shown
    assert "waiting" in shown
    assert "2 forwards. Older ones: --before 2" in shown
    assert "SECRET" not in run(hub, "forwards", "list").stdout
    assert "body" not in run_json(hub, "forwards", "list")["forwards"][0]


def test_one_is_shown_with_its_body_and_every_try(hub):
    shown = run(hub, "forwards", "show", 2).stdout
    document: Any = run_json(hub, "forwards", "show", 2)

    assert "203.0.113.7" in shown
    assert "no answer within 10 s" in shown
    assert '"event": "completed"' in shown
    assert "\x1b" not in shown
    assert [(a["number"], a["status_code"]) for a in document["attempts"]] == [(1, 503), (2, None)]
    assert document["forward"]["body"]["event"] == "completed"


def test_one_that_is_not_there_is_an_error(hub):
    result = run(hub, "forwards", "show", 99)

    assert (result.exit_code, result.stderr) == (1, "Error: There is no forward 99.\n")


def test_replaying_by_id_says_what_could_not_be(hub):
    result = run(hub, "forwards", "replay", 1, 2, 3, 99)

    assert result.exit_code == 1
    assert "To be sent again: 2 forwards." in result.stdout
    assert "Forward 3 failed: Forward 3 is not finished; it is tried again by itself." in result.stdout
    assert "Forward 99 failed: There is no forward 99." in result.stdout
    assert statuses(hub) == ["waiting"] * 3


def test_replaying_by_filter_counts_first(hub):
    counted = run_json(hub, "forwards", "replay", "--status", "dead", "--status", "waiting")
    assert counted == {"dry_run": True, "matching": 2, "replayable": 1}
    assert "add --yes to replay 1 of them" in run(hub, "forwards", "replay", "--status", "dead").stdout
    assert statuses(hub) == ["delivered", "dead", "waiting"]

    done = run_json(hub, "forwards", "replay", "--status", "dead", "--yes")
    assert done == {"dry_run": False, "replayed": [2], "failures": []}
    assert statuses(hub) == ["delivered", "waiting", "waiting"]


@pytest.mark.parametrize("arguments", [[], [1, "--status", "dead"]], ids=["neither", "both"])
def test_ids_or_filters(hub, arguments):
    result = run(hub, "forwards", "replay", *arguments)

    assert result.exit_code == 2
    assert "Give either IDs or filters" in result.stderr
