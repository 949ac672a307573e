"""The drills, with short outages; ``make drills`` runs them at full length and shows their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nginx import NJS, PROGRAM

from . import database_away, dead_scheduler, move, nginx_alone, restore

pytestmark = [pytest.mark.slow, pytest.mark.on("postgresql")]


def test_the_database_is_away(tmp_path: Path):
    database_away.drill(tmp_path, away=6)


def test_the_scheduler_is_dead(tmp_path: Path):
    dead_scheduler.drill(tmp_path)


@pytest.mark.skipif(PROGRAM is None or NJS is None, reason="nginx with njs is not on this machine")
def test_nginx_is_alone(tmp_path: Path):
    nginx_alone.drill(tmp_path)


def test_a_backup_is_restored(tmp_path: Path):
    restore.drill(tmp_path)


def test_the_service_moves(tmp_path: Path):
    move.drill(tmp_path)
