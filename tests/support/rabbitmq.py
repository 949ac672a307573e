"""A real RabbitMQ, the machine's own program with everything of it in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from .processes import Guard, ServerError, Service, clean_environment, wait_until

NO_RABBITMQ = "no RabbitMQ: install rabbitmq-server"
_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Without Debian's wrapper, which becomes another user."""


def has_rabbitmq() -> bool:
    return _PROGRAM.exists() and shutil.which("epmd") is not None


class RabbitMQServer(Service):
    """A RabbitMQ on a port of 127.0.0.1 that it keeps; durable queues and persistent messages outlive its death.

    Usable as a context manager.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True)
        self.log_path = Path(self._directory.name) / "rabbitmq.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self.port, between_nodes, names = _free_ports(3)
        self._names = {"ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        home = Path(self._directory.name)
        self._env = clean_environment(
            HOME=str(home),
            RABBITMQ_NODENAME=f"test{self.port}@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.port),
            RABBITMQ_DIST_PORT=str(between_nodes),
            RABBITMQ_MNESIA_BASE=str(home / "data"),
            RABBITMQ_LOG_BASE=str(home / "log"),
            RABBITMQ_LOGS="-",
            RABBITMQ_PID_FILE=str(home / "pid"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(home / "plugins"),
            RABBITMQ_CONF_ENV_FILE=os.devnull,
            RABBITMQ_CONFIG_FILE=str(home / "none"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            **self._names,
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start, and return when it answers. Does nothing when it runs."""
        if self._process is not None:
            return self
        if not has_rabbitmq():
            raise ServerError(NO_RABBITMQ)
        been_ready = self.log.count("Server startup complete")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [_PROGRAM],
                cwd=self._directory.name,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(-self._process.pid, signal.SIGKILL)

        def is_ready() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"RabbitMQ ended while it started. The log:\n{self.log}")
            return self.log.count("Server startup complete") > been_ready

        wait_until(is_ready, timeout=180, what="RabbitMQ did not start", log=lambda: self.log)
        return self

    def stop(self) -> None:
        """Kill it with all of its processes, as a crash would."""
        if self._process is None:
            return
        if self._guard is not None:
            self._guard.release()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = self._guard = None

    def close(self) -> None:
        super().close()
        command = [shutil.which("epmd") or "epmd", "-port", self._names["ERL_EPMD_PORT"], "-kill"]

        def has_ended() -> bool:
            """Ask Erlang's register of names to end, which a node starts and leaves; it stays until that is gone."""
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
            return "Killed" in ended.stdout or "Cannot connect" in ended.stdout + ended.stderr

        wait_until(has_ended, timeout=30, what="epmd did not end", log=lambda: self.log)


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
