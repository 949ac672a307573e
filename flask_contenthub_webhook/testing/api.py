"""The creator's HTTP API: its routes, its answers, and the calls that kill it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn

from .article import stored_result
from .behaviour import Behaviour
from .envelope import WORKFLOW_TYPE, error_answer, iso_time, success_answer, task_row, to_json
from .ledger import Ledger, TaskRecord
from .validation import STATES, Invalid, MalformedJSON, Submission, check_list_query, check_submission
from .wire import Request
from .workshop import Died, Workshop

__all__ = ["Answer", "CreatorApi"]

_REFUSED_FIELDS = [{"path": "requirements", "message": "Too big: expected string to have <=2000 characters"}]
_FINAL = frozenset({"completed", "failed", "cancelled"})


class Answer(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes


class _Refusal(Exception):
    """A call that is answered with an error."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class CreatorApi:
    """The routes of one simulated process.

    On a ``real`` creator each call that raises inside the real one's handlers ends in :class:`Died`; a ``paper`` one
    answers as the documentation says. Two of the deadly calls were never observed and are assumed to be as bad as the
    others: retrying a task that is unknown or has not failed, and cancelling one that is failed or cancelled.
    """

    def __init__(self, behaviour: Behaviour, ledger: Ledger, workshop: Workshop) -> None:
        self._behaviour = behaviour
        self._ledger = ledger
        self._workshop = workshop
        self._started = behaviour.clock()

    async def answer(self, request: Request) -> Answer:
        """Answer a call, perhaps after minutes, perhaps never.

        Raises:
            Died: the call killed the process.
        """
        route, handle = self._route(request)
        self._ledger.count("requests", f"{request.method} {route}")
        if self._behaviour.latency:
            await asyncio.sleep(self._behaviour.latency)
        try:
            return await handle()
        except Invalid as invalid:
            return self._error(400, "Request validation failed", "VALIDATION_ERROR", invalid.fields)
        except _Refusal as refusal:
            return self._error(refusal.status, refusal.message, refusal.code)
        except MalformedJSON:
            return self.broken()

    def broken(self) -> Answer:
        """Return the answer to a request that cannot be parsed."""
        return self._error(500, "Internal server error", "INTERNAL_ERROR")

    def _route(self, request: Request) -> tuple[str, Callable[[], Awaitable[Answer]]]:
        match (request.method, *request.segments):
            case ("POST", "api", "tasks"):
                return "/api/tasks", lambda: self._create(request)
            case ("GET", "api", "tasks"):
                return "/api/tasks", lambda: self._list(request)
            case ("GET", "api", "tasks", task_id):
                return "/api/tasks/:id", lambda: self._get(task_id)
            case ("GET", "api", "tasks", task_id, "status"):
                return "/api/tasks/:id/status", lambda: self._status(task_id)
            case ("GET", "api", "tasks", task_id, "result"):
                return "/api/tasks/:id/result", lambda: self._result(task_id)
            case ("DELETE", "api", "tasks", task_id):
                return "/api/tasks/:id", lambda: self._cancel(task_id)
            case ("POST", "api", "tasks", task_id, "retry"):
                return "/api/tasks/:id/retry", lambda: self._retry(task_id)
            case ("GET", "health"):
                return "/health", self._health
            case ("GET", "api", "stats"):
                return "/api/stats", self._stats
        return "*", self._nowhere

    async def _create(self, request: Request) -> Answer:
        submission = check_submission(request.body, request.headers.get("content-type", ""))
        number, task_id = self._workshop.identify(submission)
        if self._workshop.faults_of(task_id).refuse:
            self._ledger.refuse(task_id)
            raise Invalid(_REFUSED_FIELDS)
        known = self._ledger.task(task_id)
        if self._behaviour.trapped:
            if submission.mode == "async":
                raise Died("POST of an async task")
        elif known is not None:
            return self._queued(task_id, known.state, "Task already exists")
        outcome = self._workshop.accept(submission, number, task_id)
        if submission.mode == "async":
            return self._queued(task_id, "pending", "Task has been queued")
        # Shielded: a client that hangs up ends this call, not the work.
        return self._success((await asyncio.shield(outcome)).answer, HTTPStatus.CREATED)

    def _queued(self, task_id: str, state: str, message: str) -> Answer:
        return self._success({"taskId": task_id, "status": state, "message": message}, HTTPStatus.ACCEPTED)

    async def _list(self, request: Request) -> Answer:
        query = check_list_query(request.query)
        if self._behaviour.trapped and self._behaviour.postgres:
            raise Died("GET of the list on Postgres")
        records, total = self._ledger.page(query.page, query.limit, query.status)
        pagination = {"page": query.page, "limit": query.limit, "total": total, "totalPages": -(-total // query.limit)}
        rows = [task_row(record, postgres=self._behaviour.postgres) for record in records]
        return self._success({"tasks": rows, "pagination": pagination})

    async def _get(self, task_id: str) -> Answer:
        return self._success(await self._row(task_id, "GET of an unknown id"))

    async def _status(self, task_id: str) -> Answer:
        """Answer with the names of the row and ``taskId``; the real shape was never captured."""
        row = await self._row(task_id, "GET of an unknown id's status")
        names = ("status", "currentStep", "errorMessage", "createdAt", "updatedAt", "completedAt")
        return self._success({"taskId": task_id, **{name: row[name] for name in names if name in row}})

    async def _row(self, task_id: str, trap: str) -> dict[str, Any]:
        self._ledger.count("asked", task_id)
        record = self._find(task_id, trap)
        if "hang" in record.faults:
            await asyncio.get_running_loop().create_future()
        return task_row(record, postgres=self._behaviour.postgres)

    async def _result(self, task_id: str) -> Answer:
        self._ledger.count("asked", task_id)
        record = self._find(task_id, "GET of an unknown id's result")
        if self._behaviour.trapped and self._behaviour.postgres:
            raise Died("GET of a result on Postgres")
        if record.state != "completed" or record.result is None:
            self._refuse("GET of a result before there is one", 400, "Task is not completed", "TASK_NOT_COMPLETED")
        return self._success(stored_result(task_id, record.result))

    async def _cancel(self, task_id: str) -> Answer:
        record = self._find(task_id, "DELETE of an unknown id")
        if record.state in _FINAL:
            message = f"Task is already {record.state}"
            self._refuse(f"DELETE of a {record.state} task", 400, message, "TASK_NOT_CANCELLABLE")
        self._ledger.put(replace(record, state="cancelled", updated_at=self._behaviour.clock()))
        return self._success({"taskId": task_id, "status": "cancelled", "message": "Task has been cancelled"})

    async def _retry(self, task_id: str) -> Answer:
        """Start a new task with a new id that never calls back, and answer when it is done, as for a submission."""
        record = self._find(task_id, "retry of an unknown id")
        if record.state != "failed":
            message = "Only failed tasks can be retried"
            self._refuse(f"retry of a {record.state} task", 400, message, "TASK_NOT_RETRYABLE")
        again = Submission(
            topic=record.topic,
            requirements=record.requirements,
            target_audience=record.target_audience,
            priority=record.priority,
        )
        outcome = self._workshop.accept(again, *self._workshop.identify(again))
        return self._success((await asyncio.shield(outcome)).answer)

    async def _health(self) -> Answer:
        now = self._behaviour.clock()
        health: dict[str, Any] = {
            "status": "ok",
            "timestamp": iso_time(now),
            "uptime": round((now - self._started).total_seconds() * 1000),
            "version": "0.2.0",
            "checks": {"database": "ok", "redis": "disabled", "queue": "disabled"},
        }
        return Answer(200, to_json(health))

    async def _stats(self) -> Answer:
        by_state = self._ledger.by_state()
        total = by_state.total()
        tasks = {
            "total": total,
            "byStatus": {state: by_state[state] for state in STATES},
            "byType": {WORKFLOW_TYPE: total} if total else {},
        }
        return self._success({"tasks": tasks})

    async def _nowhere(self) -> Answer:
        return self._error(404, "Route not found", "NOT_FOUND")

    def _find(self, task_id: str, trap: str) -> TaskRecord:
        record = self._ledger.task(task_id)
        if record is None:
            self._refuse(trap, 404, "Task not found", "NOT_FOUND")
        return record

    def _refuse(self, trap: str, status: int, message: str, code: str) -> NoReturn:
        """End a call that kills a real creator, and that a paper one answers with an error."""
        if self._behaviour.trapped:
            raise Died(trap)
        raise _Refusal(status, message, code)

    def _success(self, data: Any, status: int = 200) -> Answer:
        return Answer(status, success_answer(data, at=self._behaviour.clock()))

    def _error(self, status: int, message: str, code: str, fields: list[dict[str, str]] | None = None) -> Answer:
        return Answer(status, error_answer(message, code, at=self._behaviour.clock(), fields=fields))
