"""The scheduler is killed; ten minutes later the commands, the metrics and the pages say so."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.postgres import PostgresServer
from tests.support.web_database import HostDatabase

from .parts import eventually, run, running, say

_APP = "tests.support.worker_host"
_LATER = 600
_COMMANDS = ("alerts", "stats", "doctor")


def drill(directory: Path) -> None:
    """Run the drill; the clock of the processes is moved, so that nobody waits for ten minutes."""
    offset = directory / "offset"
    with PostgresServer() as postgres:
        url = postgres.create_database()
        env = {"DATABASE_URL": url, "TEST_CLOCK_OFFSET": str(offset)}
        database = HostDatabase(url).create()
        with running("scheduler", app=_APP, env=env, directory=directory) as scheduler:
            scheduler.wait_for("The scheduler runs")
            eventually(lambda: database.count("webhook_alerts") == 3 + 6, "not every job has recorded a pass")
            alive = {command: run(_APP, env, command) for command in _COMMANDS}
            assert scheduler.end(signal.SIGKILL) == -signal.SIGKILL
        offset.write_text(str(_LATER))
        dead = {command: run(_APP, env, command) for command in _COMMANDS}

    for command in _COMMANDS:
        say(f"exit code of `flask webhook {command}`, alive and dead", _codes(alive[command], dead[command]))
    for line in dead["doctor"].stdout.splitlines():
        if "Jobs that" in line or "alerts" in line:
            say("doctor", line.strip())

    assert (alive["alerts"].returncode, alive["stats"].returncode) == (0, 0), alive
    assert "The scheduler runs." in alive["doctor"].stdout
    assert "No alert is raised." in alive["doctor"].stdout
    assert {dead[command].returncode for command in _COMMANDS} == {1}
    assert "no scheduler is running" in dead["alerts"].stdout
    assert "no scheduler is running" in dead["stats"].stdout
    assert "Jobs that no longer run" in dead["doctor"].stdout
    assert "No alert is raised." not in dead["doctor"].stdout


def _codes(*ended) -> str:
    return ", ".join(str(one.returncode) for one in ended)
