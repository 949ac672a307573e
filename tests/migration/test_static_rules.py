"""squawk, a linter of migrations for PostgreSQL, over the statements of `flask db upgrade --sql`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost

_PROGRAM = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
_EXPLAINED = {
    "prefer-text-field": "MariaDB indexes no TEXT without a length, and a new column of VARCHAR costs no rewrite.",
    "prefer-bigint-over-int": "These columns count attempts and seconds; every id is a BIGINT.",
    "prefer-identity": "The ids of new tables are BIGSERIAL, which SQLAlchemy writes for every version of PostgreSQL.",
    "ban-drop-constraint": "They are helpers, which let a column become NOT NULL without a scan under a lock.",
    "prefer-robust-stmts": "The revision looks at what is left to do; a script of --sql is run once.",
    "require-statement-timeout": "Filling and validating take as long as the table is large, and hold no lock.",
}
_EXPLAINED_OF_NEW_TABLES = {
    "require-lock-timeout": "Nobody uses a table that has just been made.",
    "prefer-bigint-over-smallint": "A priority is a small number.",
}
OLD_COLUMNS = (
    "id,task_id,account_id,topic,requirements,target_audience,keywords,tone,priority,auto_approve,status,result,"
    "error_message,retry_count,score,created_at,updated_at,completed_at"
)


@pytest.fixture
def host(tmp_path: Path, postgres_url: str) -> MigratingHost:
    host = MigratingHost(tmp_path, postgres_url, models=old_contenthub.models)
    host.install()
    return host


@pytest.mark.skipif(_PROGRAM is None, reason="squawk is not installed: pip install squawk-cli")
def test_every_finding_about_a_table_in_use_is_explained(host: MigratingHost):
    found = lint(host.sql("upgrade", "head", f"contenthub_tasks={OLD_COLUMNS}"))

    assert {rule: where for rule, where in found.items() if rule not in _EXPLAINED} == {}
    assert [rule for rule in _EXPLAINED if rule not in found] == [], "explanations that nothing needs"


@pytest.mark.skipif(_PROGRAM is None, reason="squawk is not installed: pip install squawk-cli")
def test_every_finding_about_new_tables_is_explained(host: MigratingHost):
    found = lint(host.sql("upgrade", "head"))

    assert {rule: where for rule, where in found.items() if rule not in _EXPLAINED | _EXPLAINED_OF_NEW_TABLES} == {}


def lint(sql: str) -> dict[str, list[str]]:
    """Return the lines of each rule's findings."""
    command = [str(_PROGRAM), "--reporter", "json", "--pg-version", "12.0", "--stdin-filepath", "upgrade.sql"]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=60, check=False)
    lines = sql.splitlines()
    found: dict[str, list[str]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(finding["rule_name"], []).append(lines[finding["line"]].strip())
    return found
