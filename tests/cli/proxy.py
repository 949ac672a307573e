"""A reverse proxy of the standard library, which terminates TLS and does one thing wrong."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Fault = Literal["", "strip query", "change query", "redirect", "welcome page", "login", "bad gateway", "late clock"]


@contextmanager
def proxy(port: int, *, certificate: Path | None = None, fault: Fault = "") -> Iterator[int]:
    """Pass requests on to a port of this machine, with TLS where there is a certificate; gives its own port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            match fault:
                case "redirect":
                    self.answer(301, b"", Location=f"https://www.hub.example{self.path}")
                case "welcome page":
                    page = b"<html><title>Welcome to nginx!</title></html>"
                    self.answer(200, page, **{"Content-Type": "text/html"})
                case "login":
                    self.answer(401, b"who?", **{"WWW-Authenticate": "Basic", "Content-Type": "text/plain"})
                case "bad gateway":
                    page = b"<html><title>502 Bad Gateway</title></html>"
                    self.answer(502, page, **{"Content-Type": "text/html"})
                case _:
                    self.pass_on(body)

        def pass_on(self, body: bytes) -> None:
            path = self.path
            if fault == "strip query":
                path = path.partition("?")[0]
            if fault == "change query":
                path = path.lower()
            upstream = http.client.HTTPConnection("127.0.0.1", port)
            upstream.request("POST", path, body, dict(self.headers))
            response = upstream.getresponse()
            self.answer(response.status, response.read(), **{"Content-Type": response.headers["Content-Type"]})
            upstream.close()

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            late = timedelta(minutes=10) if fault == "late clock" else timedelta(0)
            return format_datetime(datetime.now(UTC) - late, usegmt=True)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
