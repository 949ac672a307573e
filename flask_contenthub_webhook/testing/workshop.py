"""The creator's work: tasks are accepted, finished and answered, and their callbacks queued, with their faults."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

from .article import FORGED_CONTENT, metrics, write_result
from .behaviour import Behaviour
from .courier import Courier
from .envelope import completed_body, failed_body
from .faults import FAILURES, Contradiction, Forgery, TaskFaults, draw
from .ledger import CallbackRecord, Ledger, TaskRecord
from .validation import Submission

__all__ = ["Died", "Outcome", "Workshop"]

_Event = tuple[float, str, bytes]
"""Seconds after the end of the work, event type, body."""

_UNWORKABLE = 'Invalid parameters for workflow "content-creator"'
_REUSED = {
    False: "UNIQUE constraint failed: tasks.id",
    True: 'duplicate key value violates unique constraint "tasks_pkey"',
}


class Died(Exception):
    """The call killed the process before it was answered; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a task's work.

    Args:
        task_id: the creator's id of the task.
        at: when it ended.
        duration: in milliseconds.
        result: of a completed task.
        other_result: of the first ``completed`` of two.
        error: the message of a failed task.
    """

    task_id: str
    at: datetime
    duration: int
    result: Mapping[str, Any] = field(default_factory=dict)
    other_result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def answer(self) -> dict[str, Any]:
        """The ``data`` of the answer to the submission."""
        if self.error is None:
            return {"taskId": self.task_id, "status": "completed", **self.result}
        failed = {"taskId": self.task_id, "status": "failed", "wordCount": 0, "metrics": metrics(self.duration)}
        return {**failed, "error": self.error}


@dataclass(slots=True, eq=False, kw_only=True)
class _Run:
    submission: Submission
    task_id: str
    plan: TaskFaults
    started: datetime
    outcome: asyncio.Future[Outcome]
    timers: list[asyncio.Handle] = field(default_factory=list)


class Workshop:
    """All work in progress of one simulated process, in its event loop."""

    def __init__(self, behaviour: Behaviour, ledger: Ledger, courier: Courier) -> None:
        self._behaviour = behaviour
        self._ledger = ledger
        self._courier = courier
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, _Run] = {}
        self._answering: set[asyncio.TimerHandle] = set()

    @property
    def idle(self) -> bool:
        """True if nothing is being worked on."""
        return not (self._runs or self._answering)

    def identify(self, submission: Submission) -> tuple[int, str]:
        """Number a submission, and generate an id if it has none."""
        number = self._ledger.next_number()
        if submission.task_id is not None:
            return number, submission.task_id
        bits = b"".join(
            int(draw(self._behaviour.seed, str(number), f"id {half}") * 2**48).to_bytes(6) for half in range(3)
        )
        return number, str(uuid.UUID(bytes=bits[:16], version=4))

    def faults_of(self, task_id: str) -> TaskFaults:
        """Return the faults of a task."""
        return self._behaviour.faults.of(self._behaviour.seed, task_id)

    def accept(self, submission: Submission, number: int, task_id: str) -> asyncio.Future[Outcome]:
        """Start to work on a submission. The future ends when its answer is due; the work does not depend on it.

        Raises:
            Died: the process died after the task was stored, before an answer.
        """
        if (existing := self._ledger.task(task_id)) is not None:
            return self._collide(submission, existing)
        now, plan = self._behaviour.clock(), self.faults_of(task_id)
        record = TaskRecord(
            number=number,
            id=task_id,
            state="pending" if submission.mode == "async" else "running",
            mode=submission.mode,
            topic=submission.topic,
            requirements=submission.requirements,
            target_audience=submission.target_audience,
            priority=submission.priority,
            callback_url=submission.callback_url,
            created_at=now,
            updated_at=now,
            faults=plan.names,
        )
        self._ledger.put(record)
        if number in self._behaviour.faults.crash_at:
            raise Died(f"submission {number}")
        run = _Run(submission=submission, task_id=task_id, plan=plan, started=now, outcome=self._loop.create_future())
        self._runs[task_id] = run
        self._begin(run)
        return run.outcome

    def finish(self, task_id: str, error: str | None = None) -> bool:
        """End the work on a task now, as failed if an error is given; return False if it is not being worked on."""
        run = self._runs.get(task_id)
        if run is None:
            return False
        self._finish(run, error)
        return True

    def die(self) -> None:
        """Stop all work where it is."""
        for run in self._runs.values():
            for timer in run.timers:
                timer.cancel()
            run.outcome.cancel()
        for handle in self._answering:
            handle.cancel()
        self._runs.clear()
        self._answering.clear()

    def _begin(self, run: _Run) -> None:
        behaviour = self._behaviour
        if not run.submission.workable:
            run.timers.append(self._loop.call_later(0, self._finish, run, _UNWORKABLE))
            return
        seconds = 0.0
        if behaviour.work_time is not None:
            shortest, longest = behaviour.work_time
            seconds = shortest + (longest - shortest) * draw(behaviour.seed, run.task_id, "work")
            run.timers.append(self._loop.call_later(seconds, self._finish, run, None))
        if run.submission.mode == "async":
            run.timers.append(self._loop.call_soon(self._leave_the_queue, run))
        if run.plan.forge is not None and run.submission.callback_url is not None:
            after = seconds * draw(behaviour.seed, run.task_id, "forge when")
            self._courier.send_forged(self._forge(run, run.plan.forge), after=after)

    def _leave_the_queue(self, run: _Run) -> None:
        record = self._ledger.task(run.task_id)
        if record is not None and record.state == "pending":
            self._ledger.put(replace(record, state="running", updated_at=self._behaviour.clock()))

    def _finish(self, run: _Run, error: str | None) -> None:
        for timer in run.timers:
            timer.cancel()
        del self._runs[run.task_id]
        record = self._ledger.task(run.task_id)
        if record is None:
            return
        now = self._behaviour.clock()
        error = error or run.plan.fail
        duration = round((now - run.started) / timedelta(milliseconds=1))
        if error is None:
            write = partial(
                write_result,
                run.task_id,
                run.submission.topic,
                seed=self._behaviour.seed,
                at=now,
                duration=duration,
                images_url=self._behaviour.images_url,
            )
            twice = run.plan.contradict is Contradiction.TWO_COMPLETED
            result = write(version=2 if twice else 1)
            other = write(version=1) if twice else None
            outcome = Outcome(task_id=run.task_id, at=now, duration=duration, result=result, other_result=other or {})
            # A cancelled task is worked on to its end, and its row stays cancelled; a reused id has marked it failed.
            changed = replace(record, state="completed", error=None, result=result, other_result=other)
        else:
            outcome = Outcome(task_id=run.task_id, at=now, duration=duration, error=error)
            changed = replace(record, state="failed", error=error)
        state = "cancelled" if record.state == "cancelled" else changed.state
        self._ledger.put(replace(changed, state=state, updated_at=now, finished_at=now))
        self._report(run.submission, outcome, run.plan, run.outcome)

    def _collide(self, submission: Submission, existing: TaskRecord) -> asyncio.Future[Outcome]:
        """Fail a submission whose id is in use; the creator then marks the row of the first one failed."""
        now = self._behaviour.clock()
        error = _REUSED[self._behaviour.postgres]
        self._ledger.put(replace(existing, state="failed", error=error, updated_at=now, finished_at=now))
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        outcome = Outcome(task_id=existing.id, at=now, duration=0, error=error)
        self._report(submission, outcome, TaskFaults(), answer)
        return answer

    def _report(
        self, submission: Submission, outcome: Outcome, plan: TaskFaults, answer: asyncio.Future[Outcome]
    ) -> None:
        """Answer and call back at nearly the same time, in either order."""
        earliest, latest = self._behaviour.callback_offset
        offset = earliest + (latest - earliest) * draw(self._behaviour.seed, outcome.task_id, "offset")
        for after, callback in self._callbacks(submission, outcome, plan):
            if plan.lose:
                self._courier.lose(callback, "lose")
            else:
                hold = self._behaviour.faults.reorder_hold if plan.reorder else None
                self._courier.send(callback, after=after + max(offset, 0.0), hold=hold)

        def settle() -> None:
            self._answering.discard(handle)
            if not answer.done():
                answer.set_result(outcome)

        handle = self._loop.call_later(max(-offset, 0.0), settle)
        self._answering.add(handle)

    def _callbacks(
        self, submission: Submission, outcome: Outcome, plan: TaskFaults
    ) -> list[tuple[float, CallbackRecord]]:
        """Return the callbacks, each with the seconds after the end of the work."""
        url = submission.callback_url
        if url is None:
            return []
        faults = self._behaviour.faults
        labels = tuple(name for name in plan.names if name.startswith(("delay", "reorder", "contradict")))
        delay = faults.delay_by if plan.delay else 0.0
        record = partial(CallbackRecord, task_id=outcome.task_id, url=url, sent_at=outcome.at, faults=labels)
        callbacks = [
            (delay + after, record(event=event, body=body))
            for after, event, body in self._events(submission, outcome, plan)
        ]
        if plan.duplicate:
            after, callback = callbacks[0]
            copy = replace(callback, faults=(*labels, "duplicate"))
            callbacks.insert(1, (after + faults.duplicate_after, copy))
        if plan.reorder:
            times = [after for after, _ in callbacks]
            callbacks = list(zip(times, [callback for _, callback in reversed(callbacks)], strict=True))
        return callbacks

    def _events(self, submission: Submission, outcome: Outcome, plan: TaskFaults) -> list[_Event]:
        """Return what the callbacks say: the truth alone, or with a contradiction."""

        def completed(result: Mapping[str, Any], after: float = 0.0) -> _Event:
            at = outcome.at + timedelta(seconds=after)
            return after, "completed", completed_body(outcome.task_id, submission.metadata, result, at=at)

        def failed(message: str, after: float = 0.0) -> _Event:
            at, duration = outcome.at + timedelta(seconds=after), outcome.duration
            body = failed_body(outcome.task_id, submission.metadata, message, at=at, duration=duration)
            return after, "failed", body

        if outcome.error is not None:
            return [failed(outcome.error)]
        gap = self._behaviour.faults.contradict_after
        lie = FAILURES[int(draw(self._behaviour.seed, outcome.task_id, "lie") * len(FAILURES))]
        match plan.contradict:
            case Contradiction.FAILED_THEN_COMPLETED:
                return [failed(lie), completed(outcome.result, gap)]
            case Contradiction.FAILED_AFTER_COMPLETED:
                return [completed(outcome.result), failed(lie, gap)]
            case Contradiction.TWO_COMPLETED:
                return [completed(outcome.other_result), completed(outcome.result, gap)]
            case None:
                return [completed(outcome.result)]

    def _forge(self, run: _Run, forgery: Forgery) -> CallbackRecord:
        """Return a forged ``completed``."""
        url, task_id = run.submission.callback_url or "", run.task_id
        match forgery:
            case Forgery.NO_TOKEN:
                url = _with_token(url, None)
            case Forgery.WRONG_TOKEN:
                letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                seed = self._behaviour.seed
                url = _with_token(url, "".join(letters[int(draw(seed, task_id, f"t{n}") * 52)] for n in range(43)))
            case Forgery.OTHER_TASK:
                url, task_id = self._of_another_task(run, url)
        result = {"content": FORGED_CONTENT, "htmlContent": FORGED_CONTENT, "images": [], "qualityScore": 10.0}
        result |= {"wordCount": len(FORGED_CONTENT), "metrics": metrics(1)}
        body = completed_body(task_id, run.submission.metadata, result, at=run.started)
        return CallbackRecord(
            task_id=task_id,
            event="completed",
            url=url,
            body=body,
            sent_at=run.started,
            faults=(f"forge:{forgery}",),
        )

    def _of_another_task(self, run: _Run, url: str) -> tuple[str, str]:
        mine = urlsplit(url)
        for record in reversed(self._ledger.tasks().values()):
            if record.id == run.task_id or record.callback_url is None:
                continue
            theirs = urlsplit(record.callback_url)
            if theirs.path != mine.path:
                return _forged_url(theirs, query=mine.query), record.id
        unknown = str(uuid.UUID(int=0, version=4))
        path = f"{mine.path.rpartition('/')[0]}/{quote(unknown)}"
        return _forged_url(mine, path=path), unknown


def _with_token(url: str, token: str | None) -> str:
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "token"]
    if token is not None:
        query.append(("token", token))
    return _forged_url(parts, query=urlencode(query))


def _forged_url(parts: SplitResult, **changes: str) -> str:
    """Return a changed URL without its ``user:pass@``, which a forger does not know."""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], **changes))
