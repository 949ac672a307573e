"""The host's app on a real port, so that a creator or the simulator can call back."""

from __future__ import annotations

import dataclasses
import threading
from typing import Self

from flask import Flask
from werkzeug.serving import BaseWSGIServer, make_server

from ..runtime.state import get_state

__all__ = ["LiveApp"]


class LiveApp:
    """A context manager that serves an app on loopback from a thread, and makes that its callback base URL.

    Args:
        app: the host's app. Several threads must be able to use its database, so not an in-memory SQLite.
    """

    def __init__(self, app: Flask) -> None:
        self._state = get_state(app)
        self._settings = self._state.settings
        self._server: BaseWSGIServer = make_server("127.0.0.1", 0, app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, name="live-app", daemon=True)

    @property
    def base_url(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._state.settings = dataclasses.replace(self._settings, callback_base_url=self.base_url)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._state.settings = self._settings
