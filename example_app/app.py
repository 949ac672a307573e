"""The application factory: an ordinary one, with one more extension than usual."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask

from flask_contenthub_webhook.contrib.dashboard import create_dashboard

from . import models
from .config import configure
from .database import tune_sqlite
from .extensions import db, migrate, webhook
from .handlers import connect_handlers
from .views import api, is_at_this_machine, pages

MIGRATIONS = Path(__file__).with_name("migrations")


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application.

    Args:
        config: settings that override the environment and the defaults of `config.py`.
    """
    app = Flask(__name__)
    configure(app, config or {})
    db.init_app(app)
    tune_sqlite(app, db)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    webhook.init_app(app, db, task_model=models.GenerationTask, delivery_model=models.Delivery)
    connect_handlers(app)
    app.register_blueprint(pages)
    app.register_blueprint(api, url_prefix="/api/hub")
    app.register_blueprint(create_dashboard(permission=is_at_this_machine), url_prefix="/webhooks")
    app.shell_context_processor(lambda: {"db": db, "webhook": webhook, **{m.__name__: m for m in models.ALL}})
    return app
