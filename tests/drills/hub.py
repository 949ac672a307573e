"""The application of the drills with a service: in this process to submit, and as commands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.runtime.state import WebhookState, get_state
from flask_contenthub_webhook.tasks.handover import submit_due
from tests.support.raw_http import callback
from tests.support.web_database import HostDatabase
from tests.support.web_host import create_app, db

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask

    from flask_contenthub_webhook.testing import CreatorSimulator

COMMANDS = "tests.support.web_host"
"""The application, as ``flask --app`` takes it."""
FINAL = {"completed", "failed", "timeout", "cancelled"}
_SETTINGS = {
    "WEBHOOK_SUBMIT_THREADS": "0",
    "WEBHOOK_CALLBACK_BASE_URL": "http://127.0.0.1:9",  # no callback arrives: the poller finds everything
    "WEBHOOK_POLL_GRACE": "1",
    "WEBHOOK_POLL_INTERVAL": "3",
    "WEBHOOK_POLL_MAX_INTERVAL": "3",
    "CREATOR_SUBMIT_WAIT": "0.2",
    "CREATOR_API_TIMEOUT": "5",
}


@dataclass
class Hub:
    """One installation.

    Args:
        app: the application in this process.
        database: its tables, from outside.
        env: the environment of its commands.
    """

    app: Flask
    database: HostDatabase
    env: dict[str, str]

    @classmethod
    def on(cls, url: str, **settings: str) -> Hub:
        """Return an installation; the tables are made unless they exist."""
        env = {"DATABASE_URL": url, **_SETTINGS, **settings}
        return cls(create_app(**env, TESTING=True), HostDatabase(url).create(), env)

    @property
    def state(self) -> WebhookState:
        return get_state(self.app)

    def submit(self, **values: Any) -> str:
        """Write a task that waits for its submission."""
        with self.app.app_context():
            task = ContentHubWebhook().submit(topic="T", requirements="R", target_audience="A", **values)
            return str(task.task_id)

    def cancel(self, task_id: str) -> None:
        with self.app.app_context():
            ContentHubWebhook().cancel(task_id)

    def sweep(self) -> None:
        """Hand over what is due."""
        with self.app.app_context():
            submit_due(self.state)

    def report_progress(self, task_id: str) -> None:
        """Post a progress callback."""
        event = {"event": "progress", "taskId": task_id, "progress": {"percentage": 40}}
        answer = self.app.test_client().post(callback(task_id), json=event)
        assert answer.status_code == 200, answer.text

    def finish(self, service: CreatorSimulator, task_id: str, *, error: str | None = None) -> None:
        """Let the service end its job of a task."""
        service.finish(str(self.database.task(task_id).creator_task_id), error=error)

    def statuses(self, task_ids: Iterable[str]) -> dict[str, int]:
        """Count tasks by their status."""
        return dict(Counter(self.database.status(task_id) for task_id in task_ids))

    def are_final(self, task_ids: Iterable[str]) -> bool:
        return set(self.statuses(task_ids)) <= FINAL

    def close(self) -> None:
        """Release the connections, as a restore needs it."""
        with self.app.app_context():
            db.session.remove()
            db.engine.dispose()


def submissions(service: CreatorSimulator) -> int:
    """Return the number of jobs that were paid for."""
    return service.requests["POST /api/tasks"]
