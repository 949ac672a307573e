"""Run the drills, all or those named: ``python -m tests.drills [NAME ...]``."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

from . import database_away, dead_scheduler, move, nginx_alone, restore

DRILLS = {
    "restore": restore.drill,
    "move": move.drill,
    "database-away": database_away.drill,
    "dead-scheduler": dead_scheduler.drill,
    "nginx-alone": nginx_alone.drill,
}


def main(names: list[str]) -> None:
    """Run each drill in a folder of its own, and print its figures; the first that fails ends the run."""
    unknown = set(names) - set(DRILLS)
    if unknown:
        sys.exit(f"There are no drills named {', '.join(sorted(unknown))}; there are {', '.join(DRILLS)}.")
    for name in names or DRILLS:
        print(name, flush=True)  # noqa: T201
        began, said = time.monotonic(), io.StringIO()
        try:
            with tempfile.TemporaryDirectory(prefix="drill-") as directory, contextlib.redirect_stdout(said):
                DRILLS[name](Path(directory))
        except BaseException:
            print(said.getvalue(), flush=True)  # noqa: T201 - the logs of its parts
            raise
        print(f"  passed in {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
