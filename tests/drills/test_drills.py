"""The drills, with short outages; ``make drills`` runs them at full length and shows their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import database_away

pytestmark = pytest.mark.slow


def test_the_database_is_away(tmp_path: Path):
    database_away.drill(tmp_path, away=6)
