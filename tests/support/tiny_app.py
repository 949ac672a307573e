"""The smallest application that shows whether the servers of the tests work."""

from __future__ import annotations

import os

from flask import Flask, request
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from .processes import HOST_VARIABLES


def create_app() -> Flask:
    app = Flask(__name__)
    engine = create_engine(os.environ.get("DATABASE_URL", "sqlite://"), pool_pre_ping=True)

    @app.get("/")
    def who() -> dict[str, object]:
        configured = sorted(name for name in os.environ if name.startswith(HOST_VARIABLES))
        return {"pid": os.getpid(), "scheme": request.scheme, "configured": configured}

    @app.get("/database")
    def database() -> tuple[dict[str, object], int]:
        try:
            with engine.connect() as connection:
                return {"two": connection.scalar(text("select 1 + 1"))}, 200
        except DBAPIError:
            return {"two": None}, 503

    return app


def broken_app() -> Flask:
    raise RuntimeError("this factory is broken")
