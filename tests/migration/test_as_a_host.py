"""The whole way as a host goes it, with the real commands in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.processes import PROJECT_ROOT, clean_environment

APP = """
import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.migrations import install_revisions

db = SQLAlchemy()
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db.init_app(app)
Migrate(app, db)
ContentHubWebhook().init_app(app, db)


@app.cli.command("install-revisions")
def install():
    for each in install_revisions(app):
        print("new" if each.is_new else "known", each.revision)
"""


@pytest.mark.slow
def test_init_install_upgrade_check_down_and_up(tmp_path: Path, database_url: str):
    (tmp_path / "app.py").write_text(APP)
    environment = clean_environment(
        DATABASE_URL=database_url, FLASK_APP="app.py", PYTHONPATH=str(PROJECT_ROOT), PYTHONDONTWRITEBYTECODE="1"
    )

    def flask(*arguments: str) -> str:
        command = [sys.executable, "-m", "flask", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"flask {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    flask("db", "init")
    installed = [f"new contenthub{number:04}" for number in (1, 2, 3)]
    assert flask("install-revisions").splitlines() == installed
    assert "Running upgrade" in flask("db", "upgrade")
    assert "No new upgrade operations detected" in flask("db", "check")
    flask("db", "downgrade", "base")
    flask("db", "upgrade")
    flask("db", "check")
    engine = sa.create_engine(database_url)
    assert {"content_generation_tasks", "webhook_deliveries", "webhook_forwards"} < set(
        sa.inspect(engine).get_table_names()
    )
    engine.dispose()
