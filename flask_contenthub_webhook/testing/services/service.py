"""The common part of the fake services: HTTP on loopback, the jobs that were started, and the webhooks about them."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

import httpx

__all__ = ["Answer", "FakeService", "Message", "PaidJob", "Request"]

TIMEOUT = 30
OTHER_KEY = "another-key-of-somebody-else-00"

Answer = tuple[int, Any]
"""An HTTP status and a JSON document."""


@dataclass(frozen=True)
class Request:
    """A request to the service."""

    method: str
    url: SplitResult
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path, without the query."""
        return self.url.path

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the URL."""
        return dict(parse_qsl(self.url.query))

    @property
    def json(self) -> dict[str, Any]:
        """The body as a document; an empty body is an empty one."""
        document: dict[str, Any] = json.loads(self.body or b"{}")
        return document


@dataclass
class PaidJob:
    """One job that the service has started, and that somebody pays for.

    Args:
        id: the service's name for it.
        asked: the document with which it was submitted.
        callback_url: where its webhooks go; None if there are none.
    """

    id: str
    asked: dict[str, Any]
    callback_url: str | None = None
    created_at: float = field(default_factory=time.time)
    state: Literal["open", "completed", "failed", "cancelled"] = "open"
    text: str = ""
    """The answer of a completed job."""
    error: str = ""
    """The service's own words about a failed one."""
    broken: bool = False
    """The answer is left out of the webhook, where the service does that."""


@dataclass(frozen=True)
class Message:
    """A webhook, signed and ready to be sent, once or several times."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def send(self) -> httpx.Response:
        """Deliver it."""
        headers = {"Content-Type": "application/json", **self.headers}
        return httpx.post(self.url, content=self.body, headers=headers, timeout=TIMEOUT, trust_env=False)


class FakeService(ABC):
    """A service on loopback, as a context manager. It does no work: a test says how each job ends.

    Args:
        webhook_url: where webhooks go if a job names no URL of its own, as in the settings of a project.
    """

    def __init__(self, *, webhook_url: str | None = None) -> None:
        self.webhook_url = webhook_url
        self.secret = secrets.token_hex(16)
        """What it signs with, if that is a shared secret."""
        self.jobs: dict[str, PaidJob] = {}
        """Every job that was started, in order."""
        self.requests: list[Request] = []
        """Everything it was asked."""
        self.cut: Literal["before", "after"] | None = None
        """Cut the connection of the next submissions, before a job is started or after that."""
        self.away: int | None = None
        """Answer everything with this status and a page, as a gateway does."""
        self.retry_after: int | None = None
        """The Retry-After of that page."""
        self.clock: Callable[[], float] = time.time
        """The time that webhooks bear."""
        self.before_answering: Callable[[PaidJob], object] = lambda _: None
        """Called when a job has been started, and its submission not yet been answered."""
        self._lock = threading.RLock()
        self._clients = contextlib.ExitStack()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # --- what a test does ------------------------------------------------------------------------------------

    @property
    def last(self) -> PaidJob:
        """The job that was started last."""
        return list(self.jobs.values())[-1]

    @property
    def asked(self) -> list[str]:
        """Method and path of everything it was asked."""
        return [f"{request.method} {request.path}" for request in self.requests]

    @property
    def alive(self) -> list[PaidJob]:
        """The jobs that are still running."""
        return [job for job in self.jobs.values() if job.state == "open"]

    def complete(self, job: PaidJob, text: str = "the answer") -> PaidJob:
        """End a job with an answer; no webhook is sent by this."""
        job.state, job.text = "completed", text
        return job

    def fail(self, job: PaidJob, error: str = "the model is overloaded") -> PaidJob:
        """End a job with an error; no webhook is sent by this."""
        job.state, job.error = "failed", error
        return job

    def message(self, job: PaidJob, *, forged: bool = False) -> Message:
        """Return the webhook about a job as it is now; a forged one is signed with another key.

        Raises:
            ValueError: neither the job nor the project has a URL for webhooks.
        """
        url = job.callback_url or self.webhook_url
        if url is None:
            raise ValueError("The job was submitted without a webhook, and webhook_url is not set.")
        return self.signed(job, url, json.dumps(self.event(job)).encode(), forged=forged)

    # --- what each service defines -----------------------------------------------------------------------------

    @abstractmethod
    def answer(self, request: Request) -> Answer | None:
        """Answer a request; None for one that the service does not know."""

    @abstractmethod
    def event(self, job: PaidJob) -> dict[str, Any]:
        """Return the document that a webhook about a job brings."""

    @abstractmethod
    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:
        """Sign a webhook."""

    def start(self, job_id: str, asked: dict[str, Any], callback_url: str | None = None) -> PaidJob:
        """Start a job; to be called by :meth:`answer`."""
        job = self.jobs[job_id] = PaidJob(job_id, asked, callback_url)
        return job

    def closing(self, close: Callable[[], object]) -> None:
        """Close a client of this service together with it."""
        self._clients.callback(close)

    # --- serving ---------------------------------------------------------------------------------------------

    def serve(self, request: Request) -> Answer | None:
        """Answer a request, or return None to cut the connection."""
        with self._lock:
            self.requests.append(request)
            if self.away is not None:
                return self.away, "<html>Bad gateway</html>"
            known = len(self.jobs)
            if self.cut == "before" and request.method == "POST":
                return None
            answer = self.answer(request)
        if len(self.jobs) > known:
            self.before_answering(self.last)
            if self.cut == "after":
                return None
        return answer or (404, {"error": {"message": "There is no such thing."}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients hang up."""


def _handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def any_method(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = service.serve(Request(self.command, urlsplit(self.path), dict(self.headers), body))
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            status, document = answer
            is_page = isinstance(document, str)
            content = document.encode() if is_page else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if is_page else "application/json")
            if is_page and service.retry_after is not None:
                self.send_header("Retry-After", str(service.retry_after))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = any_method  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    return Handler
