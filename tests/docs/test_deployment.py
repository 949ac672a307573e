"""The files of the deployment page are understood by the programs that they are for, where those are on the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from docs.tables import HERE
from tests.support.nginx import NJS, PROGRAM, Nginx

FILES = HERE / "deployment"


@pytest.mark.parametrize("unit", sorted(FILES.glob("*.service")), ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_but_the_missing_programs(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60
    ).stderr
    if "Failed to" in said:
        pytest.skip(f"systemd-analyze cannot work here: {said}")

    ours = [line for line in said.splitlines() if unit.name in line]
    assert [line for line in ours if "is not executable" not in line] == []
    assert len(ours) == 1


@pytest.mark.parametrize("name", ["hub-web", "hub-celery", "hub-scheduler"])
def test_the_drop_in_for_metrics_is_accepted_beside_each_unit(name: str, tmp_path: Path) -> None:
    unit = tmp_path / f"{name}.service"
    shutil.copy(FILES / unit.name, unit)
    drop_in = tmp_path / f"{name}.service.d" / "metrics.conf"
    drop_in.parent.mkdir()
    shutil.copy(FILES / "metrics.conf", drop_in)

    test_systemd_finds_nothing_wrong_but_the_missing_programs(unit)


def test_the_metrics_folder_outlives_a_restart_of_one_unit() -> None:
    lines = (FILES / "metrics.conf").read_text().splitlines()

    assert {"RuntimeDirectoryPreserve=yes", "Environment=PROMETHEUS_MULTIPROC_DIR=/run/hub-metrics"} <= set(lines)


def test_the_script_for_commands_is_a_shell_script() -> None:
    assert subprocess.run(["sh", "-n", FILES / "hub-flask"], check=False).returncode == 0


@pytest.mark.skipif(PROGRAM is None or NJS is None, reason="nginx with njs is not on this machine")
def test_nginx_accepts_its_configuration() -> None:
    nginx = Nginx(8000, trustme.CA())
    try:
        tested = nginx.test()
    finally:
        nginx.close()

    assert tested.returncode == 0, tested.stderr
