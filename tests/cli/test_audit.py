"""``flask webhook audit``: what it prints, and its exit codes."""

from __future__ import annotations

import sqlalchemy as sa

from tests.cli.conftest import run, run_json
from tests.support.host import Host, completed


def spoil(host: Host, tasks: int = 1) -> list[str]:
    """Completed tasks whose status somebody has changed by hand."""
    ids = [host.add_task() for _ in range(tasks)]
    for task_id in ids:
        host.post(task_id, completed(task_id))
    with host.engine.begin() as connection:
        connection.execute(sa.update(host.state.task_model.__table__).values(status="cancelled"))
    return ids


def test_a_sound_installation_exits_with_0(host: Host):
    task_id = host.add_task()
    host.post(task_id, completed(task_id))

    result = run(host, "audit")

    assert (result.exit_code, result.stdout) == (0, "Sound: no row breaks a promise.\n")
    assert run_json(host, "audit", "--whole-history") == {"sound": True, "by_promise": {}, "findings": []}


def test_a_finding_is_named_and_exits_with_1(sqlite_host: Host):
    (task_id,) = spoil(sqlite_host)

    result = run(sqlite_host, "audit")

    assert result.exit_code == 1
    assert f"final: task {task_id}: It is cancelled, though it was completed" in result.stdout
    assert result.stdout.endswith("2 findings: final 1, explained 1.\n")


def test_programs_get_each_finding(sqlite_host: Host):
    (task_id,) = spoil(sqlite_host)

    document = run_json(sqlite_host, "audit", "--ignore", "explained")

    (finding,) = document["findings"]
    assert {key: finding[key] for key in ("promise", "table", "id", "task_id")} == {
        "promise": "final",
        "table": "task",
        "id": 1,
        "task_id": task_id,
    }
    assert (document["sound"], document["by_promise"]) == (False, {"final": 1})


def test_all_findings_are_counted_and_some_are_shown(sqlite_host: Host):
    spoil(sqlite_host, tasks=5)

    result = run(sqlite_host, "audit", "--limit", 3, "--ignore", "explained")
    document = run_json(sqlite_host, "audit", "--limit", 3, "--ignore", "explained")

    assert result.stdout.count("final: task") == len(document["findings"]) == 3
    assert "... and 2 more" in result.stdout
    assert document["by_promise"] == {"final": 5}


def test_what_cannot_look_exits_with_2(sqlite_host: Host):
    with sqlite_host.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_deliveries")

    result = run(sqlite_host, "audit")

    assert result.exit_code == 2
    assert "flask db upgrade" in result.stderr
    assert "Sound" not in result.output
