"""The doctor's words about open tasks that need a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cli.conftest import run_json
from tests.support.host import Host

OLD, NEW = "http://127.0.0.1:7", "http://127.0.0.1:9"


def words(host: Host) -> list[tuple[str, str]]:
    findings: list[dict[str, Any]] = run_json(host, "doctor")["findings"]
    return [(finding["level"], finding["message"]) for finding in findings if finding["check"] == "open tasks"]


def test_none(host):
    assert words(host) == [("ok", "There are no open tasks.")]


def test_with_the_service(hosts: Callable[..., Host], database_url: str):
    host = hosts(database_url, CREATOR_API_BASE_URL=NEW)
    host.add_task(creator_address=NEW)
    host.add_task()
    host.add_task(status="completed", next_poll_at=None)
    assert [level for level, _ in words(host)] == ["ok"]


def test_at_an_address_that_is_gone(hosts: Callable[..., Host], database_url: str):
    host = hosts(database_url, CREATOR_API_BASE_URL=NEW)
    host.add_task(creator_address=OLD)
    ((level, message),) = words(host)
    assert level == "warn"
    assert message == f"Submitted at {OLD}, which is no longer configured: 1 open task."


def test_at_the_previous_address(hosts: Callable[..., Host], database_url: str):
    host = hosts(database_url, CREATOR_API_BASE_URL=NEW, CREATOR_API_PREVIOUS_URL=OLD)
    host.add_task(creator_address=OLD)
    ((level, message),) = words(host)
    assert (level, message) == (
        "ok",
        f"Still at {OLD}: 1 open task. Keep CREATOR_API_PREVIOUS_URL until none is left.",
    )


def test_made_by_hand(host):
    host.add_task(status="pending")
    ((level, message),) = words(host)
    assert level == "warn"
    assert "made by hand or before a migration" in message


def test_a_bug_of_the_creator(host):
    host.add_task(error_code="BUG_IN_CREATOR", error_message="Mine.submit raised KeyError: 'id'.")
    ((level, message),) = words(host)
    assert level == "fail"
    assert message.endswith("Mine.submit raised KeyError: 'id'.")
