"""A backup that is older than the world is restored, with tasks in every state: nothing is paid twice.

The backup is one of ``pg_dump``. Afterwards the service is counted: each job once, but for the task that was never
submitted.
"""

from __future__ import annotations

from pathlib import Path

from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.postgres import PostgresServer

from .hub import COMMANDS, Hub, submissions
from .parts import eventually, run, running, say

_END = {"failed": "failed", "timed out": "timeout", "cancelled": "cancelled"}


def drill(directory: Path) -> None:
    """Run the drill."""
    with (
        PostgresServer() as postgres,
        CreatorSimulator(work_time=None, restart_after=None, orphans="failed") as service,
    ):
        url = postgres.create_database()
        hub = Hub.on(url, CREATOR_API_BASE_URL=service.base_url)

        early = {
            name: hub.submit(max_retries=0, timeout=1 if name == "timed out" else None)
            for name in ("submitted", "processing", "finished since", "completed", "failed", "timed out", "cancelled")
        }
        hub.sweep()
        hub.report_progress(early["processing"])
        hub.finish(service, early["completed"])
        hub.finish(service, early["failed"], error="no luck")
        hub.cancel(early["cancelled"])
        with running("scheduler", app=COMMANDS, env=hub.env, directory=directory):
            ended = [early[name] for name in ("completed", "failed", "timed out")]
            eventually(lambda: hub.are_final(ended), "the results did not arrive")
        late = {
            name: hub.submit() for name in ("waited, runs since", "waited, finished since", "waited, dropped since")
        }
        hub.close()
        backup = postgres.dump(url)

        hub.cancel(late["waited, dropped since"])  # before it was submitted, so the service never had it
        hub.submit()  # a task that the backup does not have
        hub.sweep()
        hub.finish(service, early["finished since"])
        hub.finish(service, late["waited, finished since"])
        before = submissions(service)
        hub.close()

        postgres.restore(url, backup)
        recovered = run(COMMANDS, hub.env, "recover", "--since", "1h")
        tasks = {**early, **late}
        with running("scheduler", app=COMMANDS, env=hub.env, directory=directory):
            fetched = [early["finished since"], late["waited, finished since"]]
            eventually(lambda: hub.are_final(fetched), "the results were not fetched")
            eventually(
                lambda: hub.database.status(late["waited, dropped since"]) == "submitted", "it was not submitted"
            )
            for name, job in service.tasks.items():
                if job.state == "running":
                    service.finish(name)
            eventually(lambda: hub.are_final(tasks.values()), "not every task has ended")
        after = submissions(service)
        ends = {name: hub.database.status(task_id) for name, task_id in tasks.items()}
        effects = hub.database.contents(*tasks.values())
        attempts = {hub.database.task(task_id).attempt for task_id in tasks.values()}
        hub.close()

    say("exit code of `flask webhook recover`", recovered.returncode)
    for name, status in ends.items():
        say(f"end state of: {name}", status)
    say("jobs paid for, before and after the restore", f"{before}, {after}")

    assert recovered.returncode == 0, recovered.stderr
    assert ends == {name: _END.get(name, "completed") for name in tasks}
    assert after == before + 1  # the one that was dropped, which is wanted again
    assert attempts == {1}
    assert {name for name, task_id in tasks.items() if effects[task_id] != (ends[name] == "completed")} == set()
