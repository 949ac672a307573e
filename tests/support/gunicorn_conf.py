"""The configuration file of the gunicorns that the tests start: it tells them which workers are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

control_socket_disable = True  # gunicorn 25.1 and newer: one fixed path in the home folder for all servers

_workers = Path(os.environ["TEST_GUNICORN_WORKERS"])


def post_worker_init(worker: Any) -> None:
    """In the worker, once the application is loaded."""
    (_workers / str(os.getpid())).touch()


def child_exit(_server: Any, worker: Any) -> None:
    """In the master, once the worker has been waited for."""
    (_workers / str(worker.pid)).unlink(missing_ok=True)
