"""A real PgBouncer in front of the PostgreSQL of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from sqlalchemy import make_url

from .postgres import PostgresServer
from .processes import Guard, Service, accepts_connections, clean_environment, wait_until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_USER = "nobody"


class PgBouncer(Service):
    """A PgBouncer on a free port of 127.0.0.1; as root it runs as an unprivileged user, which it insists on.

    Args:
        postgres: the server behind it.
        pool_mode: ``transaction`` or ``session``.
        pool_size: connections to each database.
    """

    def __init__(self, postgres: PostgresServer, *, pool_mode: str, pool_size: int = 5) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pgb-", dir="/tmp")
        folder = Path(self._directory.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._log = folder / "log"
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n* = host={postgres.directory} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, url: str) -> str:
        """The URL of a database of the server, through this PgBouncer."""
        through = make_url(url).set(host="127.0.0.1", port=self.port, query={})
        return through.render_as_string(hide_password=False)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> Self:
        assert PROGRAM is not None
        as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            for path in (self._config.parent, self._config):
                os.chown(path, user.pw_uid, user.pw_gid)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, str(self._config)],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **as_user,  # type: ignore[call-overload]
            )
        self._guard = Guard(self._process.pid, signal.SIGTERM)
        try:
            wait_until(
                lambda: accepts_connections(self.port), timeout=60, what="PgBouncer did not start", log=lambda: self.log
            )
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._guard.release()
        self._process = None
