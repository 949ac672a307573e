"""The nginx of the deployment guide, with its own prefix on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import trustme

from .processes import PROJECT_ROOT, Guard, Service, wait_until

GUIDE = PROJECT_ROOT / "docs" / "deployment"
_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))
_CERTIFICATES = re.compile(r" *# --- client certificates\n.*?# --- end\n", re.DOTALL)
PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
NJS = next((found for folder in _MODULES if (found := folder / "ngx_http_js_module.so").exists()), None)


class Nginx(Service):
    """The guide's ``nginx.conf``, changed only in its paths and ports.

    Args:
        upstream: the port of gunicorn.
        authority: issues the certificate of the server, and those of clients that are let in.
        certificates: leave the lines about client certificates in.
    """

    def __init__(self, upstream: int, authority: trustme.CA, *, certificates: bool = True) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="nginx-")
        self.directory = Path(self._directory.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        certificate = authority.issue_cert("hub.example", "127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(self.directory / "fullchain.pem")
        certificate.private_key_pem.write_to_path(self.directory / "key.pem")
        authority.cert_pem.write_to_path(self.directory / "creators-ca.pem")
        site = (GUIDE / "nginx.conf").read_text()
        if not certificates:
            site = _CERTIFICATES.sub("", site)
        here = {
            "/etc/ssl/hub": str(self.directory),
            "/etc/nginx/client_cert.js": str(GUIDE / "client_cert.js"),
            "/var/log/nginx": str(self.directory),
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        }
        for there, path in here.items():
            assert there in site or not certificates, there
            site = site.replace(there, path)
        self.config = self.directory / "nginx.conf"
        self.config.write_text(
            f"{f'load_module {NJS};' if certificates else ''}\n"
            f"{'user root;' if os.geteuid() == 0 else ''}\n"
            f"daemon off;\npid {self.directory}/pid;\nerror_log {self.directory}/start.log;\nevents {{}}\n"
            f"http {{\n{site}\n}}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def start(self) -> Self:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, "-p", self.directory, "-c", self.config, "-e", self.directory / "start.log"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._guard = Guard(self._process.pid, signal.SIGTERM)
        wait_until(self._answers, timeout=30, what="nginx did not start", log=self.logs)
        return self

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait(15)
        if self._guard is not None:
            self._guard.release()
        self._process = self._guard = None

    def test(self) -> subprocess.CompletedProcess[str]:
        """Let nginx check the configuration."""
        assert PROGRAM is not None
        return subprocess.run(
            [PROGRAM, "-t", "-c", self.config], capture_output=True, text=True, check=False, timeout=60
        )

    def logs(self) -> str:
        """Return everything that it has written to any file."""
        written = [path for path in self.directory.rglob("*") if path.is_file() and path.suffix == ".log"]
        return "\n".join(path.read_text(errors="replace") for path in written)

    def _answers(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0
