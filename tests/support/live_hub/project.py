"""The folder of a ContentHub with Flask-Migrate, and what runs in it as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tests.migration import old_contenthub
from tests.migration.hosts import revision_source
from tests.support.gunicorn import Gunicorn
from tests.support.processes import PROJECT_ROOT, clean_environment

_HERE = Path(__file__).parent
_FILES = {
    "old_application.py": "old_application.py",
    "new_application.py": "new_application.py",
    "statement_log.py": "sitecustomize.py",
}


class LiveHub:
    """One installation, before its upgrade.

    Args:
        folder: an empty one.
        url: an empty database; the old tables are made in it.
        package: a checkout whose package is used instead of ours.
    """

    def __init__(self, folder: Path, url: str, *, package: Path = PROJECT_ROOT) -> None:
        self.folder = folder
        self.url = url
        self.statements = folder / "statements.jsonl"
        """The log of `start_upgrade`."""
        self._env = {
            "PYTHONPATH": f"{folder}{os.pathsep}{package}",
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FLASK_APP": "new_application:create_app",
            "DATABASE_URL": url,
        }
        for name, copy in _FILES.items():
            shutil.copy(_HERE / name, folder / copy)

    def make_old_tables(self) -> None:
        """`flask db init`, the host's own revision, and its upgrade."""
        self.flask("db", "init")
        source = revision_source("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
        (self.folder / "migrations/versions/0001_host.py").write_text(source)
        self.flask("db", "upgrade")

    def flask(self, *arguments: str, **env: str) -> str:
        """Run a command to its end, and return its output; raises where it fails."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self._environment(env),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"flask {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def start_upgrade(self, output: IO[bytes], **env: str) -> subprocess.Popen[bytes]:
        """Begin `flask db upgrade`; its statements are logged."""
        return subprocess.Popen(
            self._command(("db", "upgrade")),
            cwd=self.folder,
            env=self._environment({"HUB_STATEMENT_LOG": str(self.statements), **env}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def serve(self, module: str, **options: Any) -> Gunicorn:
        """Return a gunicorn with one of the applications, not yet started."""
        return Gunicorn(f"{module}:create_app()", env=self._env, **options)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "flask", *arguments]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return clean_environment() | self._env | dict(more)
