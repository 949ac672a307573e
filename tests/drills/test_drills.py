"""The drills, with short outages; ``make drills`` runs them at full length and shows their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import database_away, dead_scheduler

pytestmark = pytest.mark.slow


def test_the_database_is_away(tmp_path: Path):
    database_away.drill(tmp_path, away=6)


def test_the_scheduler_is_dead(tmp_path: Path):
    dead_scheduler.drill(tmp_path)
