"""The files of the deployment page are understood by the programs that they are for, where those are on the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from docs.tables import HERE

FILES = HERE / "deployment"
NGINX_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))


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


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    module = next((found for folder in NGINX_MODULES if (found := folder / "ngx_http_js_module.so").exists()), None)
    if nginx is None or module is None:
        pytest.skip("nginx with njs is not on this machine")
    authority = trustme.CA()
    certificate = authority.issue_cert("hub.example")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "fullchain.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "creators-ca.pem")
    here = {"/etc/ssl/hub": tmp_path, "/etc/nginx/client_cert.js": FILES / "client_cert.js", "/var/log/nginx": tmp_path}
    site = (FILES / "nginx.conf").read_text()
    for there, path in here.items():
        site = site.replace(there, str(path))
    main = tmp_path / "nginx.conf"
    main.write_text(
        f"load_module {module};\npid {tmp_path}/pid;\nerror_log {tmp_path}/errors;\nevents {{}}\nhttp {{\n{site}\n}}\n"
    )

    tested = subprocess.run([nginx, "-t", "-c", main], capture_output=True, text=True, check=False, timeout=60)

    assert tested.returncode == 0, tested.stderr
