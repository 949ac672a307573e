"""A real MariaDB, out of Debian's package `mariadb-server`; the machine's own instance is left alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pymysql
from sqlalchemy import make_url

from .processes import Guard, ServerError, Service, clean_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ShutdownMode = Literal["fast", "immediate"]

PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin"
PROGRAM = shutil.which("mariadbd", path=PATHS)
INSTALLER = shutil.which("mariadb-install-db", path=PATHS)
NO_MARIADB = "no MariaDB server: apt-get install mariadb-server"

_SHUTDOWN_SIGNALS = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}


class MariaDBServer(Service):
    """A MariaDB server in a folder of its own, reachable through a unix socket only. Usable as a context manager.

    Args:
        durable: Write through to the disk as in production. Off, it is quicker, and still survives the death of any
            process (not of the machine).
        settings: More of the server's variables.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="my-", dir=_root())
        self.directory = Path(self._directory.name)
        self.log_path = self.directory / "server.log"
        self.socket = self.directory / "socket"
        self._settings = {
            "skip-networking": "1",
            "socket": str(self.socket),
            "pid-file": str(self.directory / "pid"),
            "tmpdir": str(self.directory),  # a server that starts removes what it finds there of others
            "character-set-server": "utf8mb4",
            "default-time-zone": "+00:00",
            "max-connections": "300",
            "max-recursive-iterations": "4294967295",  # for rows by the million that a test has it make
            "max-allowed-packet": "64M",  # of MySQL 8; MariaDB's own 16 MiB takes no body of more than 8
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "32M",
            **({} if durable else {"innodb-flush-log-at-trx-commit": "2", "innodb-doublewrite": "0"}),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError("MariaDB is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start, the first time after making the data directory; return when it answers. Does nothing if it runs."""
        if self.running:
            return self
        if PROGRAM is None or INSTALLER is None:
            raise ServerError(NO_MARIADB)
        if not self._data.exists():
            self._initialise(INSTALLER)
        if self._guard is not None:
            self._guard.release()
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "--no-defaults", f"--datadir={self._data}", *_as_root(), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._popen_options(),
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)
        wait_until(self._answers, timeout=60, what="MariaDB did not start", log=lambda: self.log)
        return self

    def stop(self, mode: ShutdownMode = "fast") -> None:
        """Stop, and return when it has ended.

        `fast` rolls back and disconnects every session in order; `immediate` cuts them off as a crash would, and the
        next start recovers from the log. Both leave every committed transaction.
        """
        if self._process is None:
            return
        self._process.send_signal(_SHUTDOWN_SIGNALS[mode])
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._guard is not None:
                self._guard.release()
            self._process = self._guard = None

    @contextlib.contextmanager
    def outage(self, mode: ShutdownMode = "immediate") -> Iterator[None]:
        """Take the server away inside the `with` block, and bring it back after it."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    def create_database(self, *, charset: str = "utf8mb4") -> str:
        """Make an empty database and return its SQLAlchemy URL.

        Without `ssl_disabled` PyMySQL reads the machine's certificates for every connection, which takes 30 ms.
        """
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET {charset}")
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.socket}&ssl_disabled=true"

    def drop_database(self, url: str) -> None:
        """Drop a database of `create_database`, disconnecting whoever still uses it."""
        name = make_url(url).database
        for (session,) in self.execute("SELECT id FROM information_schema.processlist WHERE db = %s", name):
            with contextlib.suppress(pymysql.err.OperationalError):  # it has gone meanwhile
                self.execute(f"KILL HARD CONNECTION {session}")
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def execute(self, statement: str, *values: object) -> tuple[tuple[Any, ...], ...]:
        """Run one statement as the server's administrator, and return its rows."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            rows: tuple[tuple[Any, ...], ...] = cursor.fetchall()
        return rows

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _connect(self) -> Any:
        return pymysql.connect(
            unix_socket=str(self.socket), user="root", autocommit=True, connect_timeout=10, ssl_disabled=True
        )

    def _answers(self) -> bool:
        if not self.running:
            raise ServerError(f"MariaDB ended while it started. The log:\n{self.log}")
        try:
            self._connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _initialise(self, installer: str) -> None:
        without_password = ("--auth-root-authentication-method=normal", "--skip-test-db")
        small = (f"--innodb-log-file-size={self._settings['innodb-log-file-size']}", "--innodb-flush-method=nosync")
        made = subprocess.run(
            [
                installer,
                "--no-defaults",
                f"--datadir={self._data}",
                *_as_root(),
                *without_password,
                *small,
                f"--tmpdir={self.directory}",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self._popen_options(),
        )
        if made.returncode:
            shutil.rmtree(self._data, ignore_errors=True)
            raise ServerError(f"mariadb-install-db failed:\n{made.stdout}{made.stderr}")

    def _popen_options(self) -> dict[str, Any]:
        # Ctrl-C in the terminal must reach us alone: we stop the server in order.
        return {"cwd": self.directory, "env": clean_environment(LC_ALL="C"), "start_new_session": True}


def _as_root() -> tuple[str, ...]:
    """Options that allow what MariaDB only does when told to: run as root, as the tests do in a container."""
    return ("--user=root",) if os.geteuid() == 0 else ()


def _root() -> str | None:
    """A folder for temporary files whose name leaves room for the name of a unix socket."""
    longest = 60
    return None if len(tempfile.gettempdir()) < longest else "/tmp"
