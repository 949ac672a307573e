from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mariadb import NO_MARIADB
from tests.support.processes import PROJECT_ROOT
from tests.support.redis import NO_REDIS


def check(output: str, folder: Path, *programs: str) -> subprocess.CompletedProcess[str]:
    """Give `.ci/servers` the output of a test run, on a machine that has at least these programs."""
    for program in programs:
        (folder / program).write_text("#!/bin/sh\n")
        (folder / program).chmod(0o755)
    (folder / "output").write_text(output)
    return subprocess.run(
        [PROJECT_ROOT / ".ci" / "servers", folder / "output"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("mariadbd", NO_MARIADB),
        ("redis-server", NO_REDIS),
        ("uwsgi", "uwsgi: there is no /usr/bin/uwsgi (apt-get install uwsgi-plugin-python3)"),
    ],
)
def test_a_test_that_was_skipped_for_want_of_a_server_that_is_here_fails_ci(tmp_path, program, reason):
    checked = check(f"SKIPPED [2] tests/integration/test_x.py:7: {reason}\n2 skipped in 1 s\n", tmp_path, program)

    assert checked.returncode == 1
    assert program in checked.stdout


def test_other_skips_do_not(tmp_path):
    checked = check("SKIPPED [1] tests/test_x.py:7: batch mode reads the old table\n", tmp_path, "mariadbd")

    assert checked.returncode == 0, checked.stdout
