"""`make demo` as people run it: as a process, over real HTTP."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import PROJECT_ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = [sys.executable, "-m", "example_app.demo"]
LONGEST = 300
"""Seconds after which a demo is taken to hang; on a busy machine it takes minutes."""

Finished = subprocess.CompletedProcess[str]


def run_demo(*parts: str, folder: Path = PROJECT_ROOT, **environment: str) -> Finished:
    """Run the demo to its end; `folder` holds an `example_app`."""
    return subprocess.run(
        [*DEMO, *parts],
        cwd=folder,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


def broken_copy(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """Copy the example application, with some text replaced: (module, right, wrong)."""
    shutil.copytree(PROJECT_ROOT / "example_app", folder / "example_app")
    for module, right, wrong in changes:
        path = folder / "example_app" / module
        source = path.read_text()
        assert source.count(right) == 1
        path.write_text(source.replace(right, wrong))
    return folder


def assert_failed(demo: Finished, complaint: str) -> None:
    assert demo.returncode == 1, demo.stdout + demo.stderr
    assert "The demo failed." in demo.stdout
    assert "Try next" not in demo.stdout
    assert complaint in " ".join(demo.stdout.split())


def process_ids(output: str) -> list[int]:
    """Return the servers that the demo says it has started."""
    return [int(pid) for pid in re.findall(r"\(process (\d+),", output)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
