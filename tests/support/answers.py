"""Answers to callbacks, and rows that no callback has changed."""

from __future__ import annotations

from typing import Any

from tests.support.host import Host


def code(answer: Any) -> str:
    return str(answer.json["error"]["code"])


def outcome(answer: Any) -> str:
    assert answer.status_code == 200, answer.json
    return str(answer.json["outcome"])


def untouched(host: Host, task_id: str) -> bool:
    task = host.task(task_id)
    return (task.status, task.version, task.attempt) == ("submitted", 1, 1) and host.contents() == []
