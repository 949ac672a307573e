"""`flask db upgrade`, killed at its statements, and run again: nothing differs from a run without.

CHAOS_CUTS is the number of points in each journey at which the process is killed; by default one. They are counted, not
listed: a new statement is a new point. `make cuts` kills at all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.processes import PROJECT_ROOT, clean_environment

CUTS = int(os.environ.get("CHAOS_CUTS", "1"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 30 * CUTS)]


@pytest.fixture(params=["sqlite_url", "postgres_url", "mariadb_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_an_upgrade_of_an_old_table_that_was_killed_is_resumed(url: str):
    cut(url, "old")


def cut(url: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "tests.migration.cuts", "--url", url, *arguments, "--most", str(CUTS)]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    print(done.stdout)  # noqa: T201 - shown with -rP
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_an_upgrade_from_nothing_or_from_the_middle_is_resumed(url: str):
    cut(url, "empty", "half")


def test_a_downgrade_that_was_killed_is_resumed(url: str):
    cut(url, "old-down")
