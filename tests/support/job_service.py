"""A paid service on loopback and a creator for it: its books say which jobs are open, whatever anybody believes."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable

KINDS = ("keeps our names", "finds by our names", "is idempotent", "knows only its own names")


@dataclass
class PaidJob:
    """One job, from its submission on; it costs money while it is open."""

    name: str
    ours: str
    callback_url: str
    state: str = "open"
    percentage: int = 0

    @property
    def attempt(self) -> int:
        return int(parse_qs(urlsplit(self.callback_url).query)["attempt"][0])


class JobService:
    """Takes jobs over HTTP, with the faults that a test draws.

    Args:
        kind: one of ``KINDS``.
        draw: decides the faults.
    """

    def __init__(self, kind: str, draw: random.Random) -> None:
        self.kind, self.draw = kind, draw
        self.jobs: dict[str, PaidJob] = {}
        self.trouble = 0.0
        """The share of requests that end badly."""
        self.meanwhile: Callable[[PaidJob], None] = lambda _: None
        """What happens between the acceptance of a job and the answer."""
        self._lock = threading.RLock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def any_method(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = service.answer(self.command, self.path, body)
                self.close_connection = True
                if answer is None:
                    self.connection.close()
                    return
                status, said = answer
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = any_method  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Clients hang up, and connections are cut: that is what the test is about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def open_jobs(self) -> list[PaidJob]:
        with self._lock:
            return [job for job in self.jobs.values() if job.state == "open"]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any] | None:
        """Return a status and a document, or None to cut the connection."""
        with self._lock:
            fault = (
                self.draw.choice(("refused", "cut before", "cut after")) if self.draw.random() < self.trouble else ""
            )
        if fault == "refused":
            return 503, {}
        if fault == "cut before":
            return None
        answer = self._answer(method, urlsplit(path).path, parse_qs(urlsplit(path).query), body)
        return None if fault == "cut after" else answer

    def _answer(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> tuple[int, Any]:
        if method == "POST":
            job = self._accept(json.loads(body))
            self.meanwhile(job)
            return 200, self._shown(job)
        with self._lock:
            if "ours" in query:
                found = [job for job in self.jobs.values() if job.ours == query["ours"][0]]
            else:
                found = [job for name, job in self.jobs.items() if name == unquote(path.removeprefix("/jobs/"))]
            if not found:
                return 404, {"state": "missing"}
            if method == "DELETE" and found[0].state == "open":
                found[0].state = "cancelled"
            return 200, self._shown(found[0])

    def _accept(self, asked: dict[str, str]) -> PaidJob:
        with self._lock:
            if self.kind == "is idempotent":
                for job in self.jobs.values():
                    if job.ours == asked["ours"]:
                        return job
            name = asked["ours"] if self.kind == "keeps our names" else f"press-{len(self.jobs)}"
            assert name not in self.jobs, "the same job was submitted twice, and would be paid twice"
            self.jobs[name] = PaidJob(name, asked["ours"], asked["callback"])
            return self.jobs[name]

    @staticmethod
    def _shown(job: PaidJob) -> dict[str, str]:
        return {"state": job.state, "name": job.name}


class PaidCreator:
    """The host's class for the service."""

    def __init__(self, service: JobService) -> None:
        self._http = httpx.Client(base_url=service.url, timeout=20)
        self.keeps_names = service.kind == "keeps our names"
        self.idempotent = service.kind == "is idempotent"
        self.find: Callable[[Job], Report] | None = self._find if service.kind == "finds by our names" else None
        self.before_the_call: Callable[[str], None] = lambda _: None
        self.after_the_call: Callable[[str], None] = lambda _: None

    def submit(self, job: Job, *, wait: float) -> Report:
        return self._call("POST", "/jobs", {"ours": job.creator_task_id, "callback": job.callback_url})

    def status(self, creator_task_id: str) -> Report:
        return self._call("GET", f"/jobs/{quote(creator_task_id)}")

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        return {name: self.status(name) for name in creator_task_ids}

    def result(self, creator_task_id: str) -> Report:
        return Report(state=RemoteState.COMPLETED, result={"content": creator_task_id})

    def cancel(self, creator_task_id: str) -> None:
        if self._call("DELETE", f"/jobs/{quote(creator_task_id)}").state is RemoteState.MISSING:
            raise CreatorRefused("There is no such job.")

    def close(self) -> None:
        self._http.close()

    def _find(self, job: Job, *, since: datetime | None = None) -> Report:
        return self._call("GET", f"/jobs?ours={quote(job.creator_task_id)}")

    def _call(self, method: str, path: str, body: Any = None) -> Report:
        self.before_the_call(method)
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.ConnectError as error:
            raise CreatorUnreachable(str(error)) from error
        except httpx.HTTPError as error:
            raise CreatorUnclear(str(error)) from error
        self.after_the_call(method)
        if answer.status_code == 503:
            raise CreatorUnreachable("503")
        return self._report_of(answer)

    def _report_of(self, answer: httpx.Response) -> Report:
        said = answer.json()
        name = None if self.keeps_names else said.get("name")
        return Report(state=RemoteState(said["state"]), creator_task_id=name, raw=answer.content)
