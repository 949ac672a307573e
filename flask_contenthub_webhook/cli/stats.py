"""``flask webhook stats``: counts, latencies and the last passes of the jobs, in four statements."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import click

from ..core.state_machine import OPEN_STATES, TaskState, Verdict
from ..operations.jobs import JobStatus, read_jobs
from ..runtime.state import get_state
from ..storage.queries import Row
from ..storage.task_queries import read_latencies, sum_deliveries, sum_tasks
from .commands import AppCommand
from .documents import json_option, print_document
from .parameters import since_option
from .terminal import Screen, moment

__all__ = ["stats_command"]

_SHARES = (0.5, 0.9, 0.95, 0.99)


@click.command("stats", cls=AppCommand, short_help="Count tasks, deliveries and due work.")
@since_option("Start of the period, by default 24h ago")
@json_option
def stats_command(since: datetime | None, *, as_json: bool) -> None:
    """Count tasks by status, deliveries by source and verdict, and waiting and due work.

    Exit code 1 when a periodic job has stopped running: the scheduler is dead, or the job fails.
    """
    screen = None if as_json else Screen()
    state = get_state()
    now = state.now()
    since = now - timedelta(hours=24) if since is None else since
    tasks = sum_tasks(state.database, now)
    deliveries = sum_deliveries(state.database, since=since, now=now)
    latencies = read_latencies(state.database, since=since, shares=_SHARES)
    jobs = read_jobs(state)
    document = _document(tasks, deliveries, latencies, jobs, since)
    if screen is None:
        print_document(document)
    else:
        _show(screen, document, deliveries)
    if any(job.is_late for job in jobs):
        raise click.exceptions.Exit(1)


def _document(
    tasks: list[Row], deliveries: list[Row], latencies: Row, jobs: list[JobStatus], since: datetime
) -> dict[str, Any]:
    by_status = dict.fromkeys((status.value for status in TaskState), 0) | {t["status"]: t["tasks"] for t in tasks}
    return {
        "since": since,
        "tasks": {
            "total": sum(by_status.values()),
            "by_status": by_status,
            "open": sum(by_status[status.value] for status in OPEN_STATES),
            **{key: sum(task[key] for task in tasks) for key in ("overdue", "due_for_poll", "due_for_submission")},
        },
        "deliveries": {
            "total": sum(row["deliveries"] for row in deliveries),
            "by_verdict": _summed(deliveries, "verdict", "deliveries"),
            "by_source": _summed(deliveries, "source", "deliveries"),
            "recent": sum(row["recent"] for row in deliveries),
            "recent_by_verdict": _summed(deliveries, "verdict", "recent"),
            "recent_by_source": _summed(deliveries, "source", "recent"),
            "rejected_requests": int(_summed(deliveries, "verdict", "requests").get(Verdict.REJECTED, 0)),
            "waiting_retries": sum(row["waiting_retries"] for row in deliveries),
            "due_retries": sum(row["due_retries"] for row in deliveries),
            "dead": _summed(deliveries, "verdict", "deliveries").get(Verdict.DEAD, 0),
        },
        "latency_ms": {
            "count": latencies["count"],
            **{f"p{share * 100:g}": latencies[f"p{share:g}"] for share in _SHARES},
            "max": latencies["max"],
        },
        "jobs": {job.name: {"last_pass_at": job.last_pass_at, "is_late": job.is_late} for job in jobs},
    }


def _summed(rows: list[Row], by: str, what: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for row in rows:
        total[row[by]] += row[what]
    return dict(total.most_common())


def _show(screen: Screen, document: dict[str, Any], deliveries: list[Row]) -> None:
    tasks, history, latency = document["tasks"], document["deliveries"], document["latency_ms"]
    late = [(name, job) for name, job in document["jobs"].items() if job["is_late"]]
    screen.table(["status", ">tasks"], tasks["by_status"].items(), title="Tasks")
    screen.say("")
    screen.table(
        ["source", "verdict", ">all", f">since {moment(document['since'])}", ">waiting"],
        [
            (row["source"], row["verdict"], row["deliveries"], row["recent"], row["waiting_retries"])
            for row in sorted(deliveries, key=lambda row: (row["source"], -row["deliveries"]))
        ],
        title="Deliveries",
    )
    screen.say("")
    screen.facts(
        [
            ("open tasks", tasks["open"]),
            ("past their deadline", tasks["overdue"]),
            ("due for a poll", tasks["due_for_poll"]),
            ("due for submission", tasks["due_for_submission"]),
            ("deliveries waiting for a try", history["waiting_retries"]),
            ("of them due now", history["due_retries"]),
            ("dead deliveries", history["dead"]),
            ("refused requests", history["rejected_requests"]),
            ("callbacks measured", latency["count"]),
            *(
                (f"latency {name}", f"{ms:.1f} ms")
                for name, ms in latency.items()
                if name != "count" and ms is not None
            ),
            *((f"last pass of {name}", f"{moment(job['last_pass_at'])}, LATE") for name, job in late),
        ]
    )
    if late:
        screen.say("LATE: no scheduler is running, or the job fails.")
