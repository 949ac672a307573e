"""What a process imports: nothing before it is needed, and nothing that is needed while it serves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OURS = "flask_contenthub_webhook"
HEAVY = {"apscheduler", "celery", "h2", "httpcore", "httpx", "idna", "prometheus_client", "rich", "sqlite3"}
LATE = ("cli.", "contrib", "creators.cli", "creators.http", "forwarding.p", "forwarding.send")
LATER = ("migrations", "operations", "storage.audit", "tasks", "testing")
TASK = "11111111-1111-4111-8111-111111111111"

PRELUDE = f"""
import json, sys
import flask, flask_sqlalchemy
from flask_contenthub_webhook import ContentHubWebhook, task_completed

TASK = {TASK!r}
seen = {{}}
db, webhook = flask_sqlalchemy.SQLAlchemy(), ContentHubWebhook()
app = flask.Flask("started")
app.config.update(WEBHOOK_ENABLED=True, WEBHOOK_SECRET_KEY="kJ8s0dKq2nPz7vRt5mXw9yBc3gHf6lQa")

def look(name):
    seen[name] = sorted(sys.modules)
"""
SERVE = """
app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://")
db.init_app(app)
webhook.init_app(app, db)
with app.app_context():
    db.create_all()
    db.session.add(webhook.task_model(task_id=TASK, forward_to=FORWARD_TO))
    db.session.commit()
    url = webhook.callback_url(TASK, base_url="http://app")
client = app.test_client()
client.get("/health")
body = {"event": "completed", "taskId": TASK, "timestamp": "2026-01-01T00:00:00Z", "result": {"content": "text"}}
look("before")
assert client.post(url.removeprefix("http://app"), json=body).status_code == 200
look("after")
"""


def run(code: str) -> dict[str, set[str]]:
    """The modules that a new process had imported, each time that it looked."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code + "\nprint(json.dumps(seen))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {name: set(modules) for name, modules in json.loads(done.stdout.splitlines()[-1]).items()}


def heavy(modules: set[str]) -> set[str]:
    return HEAVY & {name.partition(".")[0] for name in modules}


def ours(modules: set[str]) -> set[str]:
    return {name.removeprefix(f"{OURS}.") for name in modules if name.startswith(f"{OURS}.")}


def late(modules: set[str]) -> list[str]:
    return sorted(name for name in ours(modules) if name.startswith((*LATE, *LATER)) and name != "cli.group")


def test_importing_the_package_imports_only_what_a_callback_needs():
    modules = run('look("imported")')["imported"]

    assert heavy(modules) == set()
    assert late(modules) == []
    assert len(ours(modules)) < 115


def test_an_app_with_nothing_switched_on_imports_nothing_more():
    seen = run('look("imported")\nwebhook.init_app(app, db)\nlook("registered")')

    assert ours(seen["registered"] - seen["imported"]) == {"cli", "cli.group"}
    assert heavy(seen["registered"]) == set()
    assert not any(name.startswith("sqlalchemy.dialects.postgresql") for name in seen["registered"])


def test_the_first_callback_imports_nothing():
    seen = run("FORWARD_TO = None\n" + SERVE)

    assert ours(seen["after"] - seen["before"]) == set()
    assert heavy(seen["after"]) <= {"sqlite3"}


def test_the_first_callback_that_is_forwarded_imports_nothing():
    """The outbox is written in the request; what posts from it was imported by ``init_app``, as there are URLs."""
    urls = (
        'app.config.update(WEBHOOK_FORWARD_URLS=["https://example.com/"], WEBHOOK_FORWARD_SECRET="whsec_" + "Zm9y" * 9)'
    )
    seen = run(f"FORWARD_TO = None\n{urls}\n" + SERVE)

    assert "httpx" in seen["before"]
    assert ours(seen["after"] - seen["before"]) == set()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('CREATOR_API_BASE_URL="http://127.0.0.1:9"', {"httpx", "flask_contenthub_webhook.tasks.handover"}),
        ("WEBHOOK_SCHEDULER_ENABLED=True", {"apscheduler", "flask_contenthub_webhook.operations.jobs"}),
    ],
)
def test_what_is_switched_on_is_imported_before_a_request_and_before_a_fork(settings: str, expected: set[str]):
    modules = run(f'app.config.update({settings})\nwebhook.init_app(app, db)\nlook("registered")')["registered"]

    assert expected <= modules


def test_a_command_does_not_import_the_others():
    code = "from flask_contenthub_webhook.cli import webhook_group\nwebhook_group.commands['secret']\nlook('found')"
    modules = run(code)["found"]

    assert "cli.credentials" in ours(modules)
    assert heavy(modules) == set()
    assert "cli.doctor" not in ours(modules)


def test_a_method_that_is_imported_late_has_its_signature_and_its_docstring():
    seen = run(
        "import inspect\n"
        "assert list(inspect.signature(ContentHubWebhook.submit).parameters)[:3] == ['self', 'creator', 'topic']\n"
        "assert ContentHubWebhook.submit.__doc__.startswith('Write a new task')\n"
        "assert ContentHubWebhook.submit is ContentHubWebhook.submit\n"
        'look("inspected")'
    )

    assert "tasks.submit" in ours(seen["inspected"])


def test_a_subclass_calls_the_method_that_it_overrides_once_from_the_first_call_on():
    seen = run(
        """
class Ours(ContentHubWebhook):
    def alerts(self):
        calls.append("alerts")
        return super().alerts()

calls, webhook = [], Ours()
app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://")
db.init_app(app)
webhook.init_app(app, db)
with app.app_context():
    db.create_all()
    assert len(webhook.alerts()) == 3
assert calls == ["alerts"], calls
look("called")
"""
    )

    assert "operations.alerts" in ours(seen["called"])
