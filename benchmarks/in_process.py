"""Contestants in this process: their application, without gunicorn and without a socket."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from flask import Flask

from . import hosts
from .contestants import Contestant
from .databases import Database

__all__ = ["build", "call", "engine_of", "environ_of"]


def build(contestant: Contestant, database: Database) -> Flask:
    """The contestant's application."""
    factory, arguments = contestant.factory.format(url=database.url).split("(", 1)
    with warnings.catch_warnings(action="ignore"):  # that there is no secret is the point
        app: Flask = eval(f"make({arguments}", {"make": hosts.FACTORIES[factory]})  # our own text, as for gunicorn
    return app


def engine_of(app: Flask) -> sa.Engine:
    """The engine that an application of :mod:`.hosts` works with."""
    engine = app.extensions.get("benchmark_engine")
    if engine is None:
        with app.app_context():
            engine = hosts.db.engine
    assert isinstance(engine, sa.Engine)
    return engine


def environ_of(request: bytes) -> dict[str, Any]:
    """The WSGI environment that gunicorn would make of a request."""
    head, body = request.split(b"\r\n\r\n", 1)
    first, *lines = head.decode("ascii").split("\r\n")
    _, target, protocol = first.split(" ")
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_PROTOCOL": protocol,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_SOFTWARE": "benchmark",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for line in lines:
        name, value = line.split(": ", 1)
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    return environ


def call(app: Flask, environ: dict[str, Any], *, answer: int) -> None:
    """Send one request through the application.

    Args:
        app: the application.
        environ: the request.
        answer: the status that it must be answered with.
    """
    statuses: list[str] = []

    def start_response(status: str, *_: object) -> Callable[[bytes], None]:
        statuses.append(status)
        return lambda _: None

    response: Any = app.wsgi_app(environ, start_response)
    body = b"".join(response)
    response.close()
    if int(statuses[0][:3]) != answer:
        raise RuntimeError(f"{statuses[0]}: {body!r}")
