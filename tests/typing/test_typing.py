"""The public API types well for a host that checks itself strictly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import PROJECT_ROOT

HERE = Path(__file__).parent


@pytest.mark.parametrize("example", ["example_host.py", "mistakes_of_a_host.py"])
def test_mypy_in_strict_mode_agrees_with(example: str):
    """In the second file every mistake carries an ignore, and an ignore that is not needed is an error."""
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull),
            *(
                "--warn-unused-ignores",
                "--follow-imports=silent",
                "--cache-dir",
                str(PROJECT_ROOT / ".mypy_cache" / "typing"),
                str(HERE / example),
            ),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT_ROOT,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
