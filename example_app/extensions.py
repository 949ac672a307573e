"""The extension objects, not yet bound to an application; `app.py` does that."""

from __future__ import annotations

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from flask_contenthub_webhook import ContentHubWebhook


class Base(DeclarativeBase):
    """The base of all models. Every constraint gets a name, so that a migration can change it, on SQLite too."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
webhook = ContentHubWebhook()
