"""The configuration file of the gunicorns that the tests start: it tells them which workers are there.

It is read in the master. The libraries that it imports are there for every worker at once, also for one that takes the
place of a killed one; the application itself is still loaded by each worker for itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg  # noqa: F401
import pymysql  # noqa: F401
import sqlalchemy.dialects.mysql.pymysql
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401

import flask_contenthub_webhook  # noqa: F401

control_socket_disable = True  # gunicorn 25.1 and newer: one fixed path in the home folder for all servers

_workers = Path(os.environ["TEST_GUNICORN_WORKERS"])


def post_worker_init(worker: Any) -> None:
    """In the worker, once the application is loaded."""
    (_workers / str(os.getpid())).touch()


def child_exit(_server: Any, worker: Any) -> None:
    """In the master, once the worker has been waited for."""
    (_workers / str(worker.pid)).unlink(missing_ok=True)
