"""`flask db upgrade` as a process, under the old application in threads and in gunicorn: a slice of the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.upgrade import measure

_ROWS = 3_000

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("database", ["postgres_url", "mariadb_url"])
def test_old_code_and_then_new_code_answer_everything(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    outcome = measure(request.getfixturevalue(database), tmp_path, rows=_ROWS)

    assert outcome.status == 0, outcome.output
    assert outcome.load.errors == {}
    kinds = {wait.kind for wait in outcome.load.waits}
    assert kinds == {"write", "read", "callback", "poll"}
