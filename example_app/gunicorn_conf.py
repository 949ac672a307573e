"""The gunicorn configuration that `server.py` uses."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

control_socket_disable = True  # gunicorn 25.1 and newer: one fixed path in the home folder for all servers


def on_starting(_server: Any) -> None:
    """End with the process that started us, however it ends, if it asked for that: our standard input ends with it."""
    if os.environ.get("END_WITH_PARENT"):
        threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
