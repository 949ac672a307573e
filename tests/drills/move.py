"""The service moves to an address that knows none of the open jobs, while the old one works on them.

With both addresses configured the old jobs end at the old one, and with the new one alone they are not paid again.
"""

from __future__ import annotations

from pathlib import Path

from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.postgres import PostgresServer

from .hub import COMMANDS, Hub, submissions
from .parts import eventually, run, running, say

_TASKS = 5
_MISSING = 3
"""Answers without a task after which it counts as lost."""


def drill(directory: Path) -> None:
    """Run the drill."""
    with (
        PostgresServer() as postgres,
        CreatorSimulator(work_time=None, restart_after=None) as old,
        CreatorSimulator(work_time=None, restart_after=None) as new,
    ):
        url = postgres.create_database()
        before = Hub.on(url, CREATOR_API_BASE_URL=old.base_url)
        first = [before.submit() for _ in range(_TASKS)]
        before.sweep()
        before.close()

        moved = Hub.on(url, CREATOR_API_BASE_URL=new.base_url)
        asked = old.requests["GET /api/tasks"], new.requests["GET /api/tasks"]
        with running("scheduler", app=COMMANDS, env=moved.env, directory=directory):
            eventually(lambda: new.requests["GET /api/tasks"] > asked[1] + 2 * _MISSING, "nobody polls", timeout=120)
        without = before.statuses(first), submissions(new)

        drained = Hub.on(url, CREATOR_API_BASE_URL=new.base_url, CREATOR_API_PREVIOUS_URL=old.base_url)
        second = [drained.submit() for _ in range(_TASKS)]
        with running("scheduler", app=COMMANDS, env=drained.env, directory=directory):
            eventually(lambda: submissions(new) == _TASKS, "the new tasks are not at the new service")
            doctor = run(COMMANDS, drained.env, "doctor")
            for service in (old, new):
                for name in service.tasks:
                    service.finish(name)
            eventually(lambda: drained.are_final([*first, *second]), "not every task has ended")
        paid = submissions(old), submissions(new)
        ends = drained.statuses(first), drained.statuses(second)
        effects = set(drained.database.contents(*first, *second).values())
        for hub in (before, moved, drained):
            hub.close()

    say("the new address alone: tasks, jobs at the new one", f"{without[0]}, {without[1]}")
    for line in doctor.stdout.splitlines():
        if old.base_url in line or new.base_url in line:
            say("doctor", line.strip())
    say("both addresses: tasks from before, and since", f"{ends[0]}, {ends[1]}")
    say("jobs paid for at the old and the new service", f"{paid[0]}, {paid[1]}")

    assert f"Still at {old.base_url}: {_TASKS} open tasks." in doctor.stdout
    assert without == ({"submitted": _TASKS}, 0)
    assert ends == ({"completed": _TASKS}, {"completed": _TASKS})
    assert paid == (_TASKS, _TASKS)
    assert effects == {1}
