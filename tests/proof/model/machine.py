"""The hub as a state machine: its rows, its processes and the world; and every step that may come next."""

from __future__ import annotations

import hashlib
import logging
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import signals
from flask_contenthub_webhook.core.per_process import PerProcess
from flask_contenthub_webhook.core.state_machine import OPEN_STATES, UNSETTLED, Verdict
from flask_contenthub_webhook.creators import RemoteState
from flask_contenthub_webhook.engine import retry
from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from flask_contenthub_webhook.errors import DatabaseUnavailable, HandlerFailed, WebhookError
from flask_contenthub_webhook.operations.purge import purge_deliveries
from flask_contenthub_webhook.runtime import leases, refusals
from flask_contenthub_webhook.tasks import reconcile
from flask_contenthub_webhook.tasks.handover import submit_next
from tests.support.host import Clock, Host, make_host
from tests.support.submission import BASE

from .tape import TAPE, Parked, Step, TapedConnection
from .world import ATTEMPT_TIME, Budget, Message, PaidJob, Powers, Service, World, message_of

__all__ = ["Hub", "Operation", "Process", "Setting", "State", "text_of"]

START = datetime(2026, 1, 1, tzinfo=UTC)
_TELLING_TIME = (retry, reconcile)
"""The modules that go by the monotonic clock within one pass."""

_ACKNOWLEDGED, _REFUSED = {200, 202}, 400
_DUE = {"next_submit_at", "next_poll_at", "deadline_at", "next_retry_at"}

Rows = Mapping[str, tuple[tuple[Any, ...], ...]]


class Operation(NamedTuple):
    """What a process does: a callback's request, a sweep, a poll, a worker's pass, or what a person wants."""

    kind: str
    about: Message | int | None = None
    is_broken: bool = False

    def __str__(self) -> str:
        broken = ", at which the handlers fail" if self.is_broken else ""
        match self.about:
            case Message(said=said):
                return f"the request of {said}{broken}"
            case int(number):
                return f"the {self.kind} of delivery {number}{broken}"
        return f"the {self.kind}{broken}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has begun: what it does, what it did, and whether it holds a lease, and stands before a call."""

    does: Operation
    steps: tuple[Step, ...] = ()
    has_lease: bool = False
    is_in_call: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything: the rows by table, the processes, the world, the time."""

    rows: Rows
    processes: tuple[Process, ...]
    world: World
    now: datetime

    @property
    def rows_key(self) -> int:
        return hash(tuple(self.rows.values()))

    @property
    def key(self) -> int:
        return hash((self.rows_key, self.processes, self.world, self.now))


class Setting(NamedTuple):
    """What a search goes through.

    Args:
        name: of the search.
        powers: of the service.
        budget: what may happen, how often.
        retries: attempts after the first.
        mode: WEBHOOK_PROCESSING.
        at_once: the most processes at a time.
        scheme: by which callbacks are believed.
    """

    name: str
    powers: Powers
    budget: Budget
    retries: int = 0
    mode: str = "inline"
    at_once: int = 2
    scheme: str = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of a step: in words, and what is different then; it depends on the service only if it was a call."""

    said: str
    rows: Rows
    process: Process | None
    jobs: tuple[PaidJob, ...]
    budget: Budget
    wrongs: tuple[str, ...]
    answer: int | None
    is_call: bool
    alternatives: int

    def after(self, state: State, process: Process) -> State:
        """Return the state after it, from the one before, in which the process is not among the others."""
        world = state.world
        wrongs = world.wrongs + self.wrongs
        if self.is_call:
            world = replace(world, jobs=self.jobs, budget=self.budget)
        message = process.does.about
        if self.answer is not None and isinstance(message, Message):
            if message.is_forged and self.answer < _REFUSED:
                wrongs += (f"A forged message is answered {self.answer}.",)
            elif self.answer >= _REFUSED and not message.is_forged and not process.does.is_broken:
                wrongs += (f"{process.does} is answered {self.answer}.",)
            elif self.answer in _ACKNOWLEDGED and not world.is_purged:
                world = replace(world, acknowledged=tuple(sorted({*world.acknowledged, message.body})))
        if wrongs != world.wrongs:
            world = replace(world, wrongs=wrongs)
        processes = state.processes
        if self.process is not None:
            processes = tuple(sorted((*processes, self.process), key=_order))
        return State(self.rows, processes, world, state.now)


class _Clock(Clock):
    """The time as the process that runs sees it."""

    def __call__(self) -> datetime:
        return TAPE.clock if TAPE.is_on else START

    @property
    def now(self) -> datetime:  # type: ignore[override]
        return self()

    def timestamp(self) -> float:
        return self().timestamp()

    def __init__(self) -> None:
        pass


class Hub:
    """One application on SQLite in memory, whose rows, memory and clock are put back before each step."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._raw = sqlite3.connect(":memory:", factory=TapedConnection, check_same_thread=False)
        self.db = SQLAlchemy()
        self.effect = _effect_model(self.db)
        self.service = Service(setting.powers)
        self.is_broken = False
        logging.getLogger("flask_contenthub_webhook").setLevel(logging.CRITICAL + 1)
        self.host = self._make_host()
        clock = self.host.clock = self.host.state.clock = _Clock()
        for module in _TELLING_TIME:  # or a machine that is slow would change what they do
            vars(module)["time"] = SimpleNamespace(monotonic=clock.timestamp)
        self.service.now = lambda: TAPE.clock
        self.tables = self._tables()
        self._in_database: Rows = {}
        self.steps = 0
        self._known: dict[Any, Done] = {}
        for event in ("completed", "failed", "progress", "timed_out", "cancelled"):
            self.host.connect(getattr(signals, f"task_{event}"), self._handler(event))

    def close(self) -> None:
        """Give the modules the machine's clock back: tests of this process may come after the search."""
        for module in _TELLING_TIME:
            vars(module)["time"] = time
        self.host.close()

    def _make_host(self) -> Host:
        return make_host(
            "sqlite://",
            db=self.db,
            engine_options={"creator": lambda: self._raw, "poolclass": sa.StaticPool},
            WEBHOOK_CALLBACK_BASE_URL=BASE,
            WEBHOOK_SUBMIT_THREADS=0,
            WEBHOOK_INBOX_LIMIT=0,
            WEBHOOK_POLL_GRACE=60,  # three polls in the time of an attempt
            CREATOR_API_TIMEOUT=10,  # a lease that is shorter than that
            WEBHOOK_MAX_RETRIES=self.setting.retries,
            WEBHOOK_TASK_TIMEOUT=ATTEMPT_TIME.total_seconds(),
            WEBHOOK_PROCESSING=self.setting.mode,
            WEBHOOK_SIGNATURE_SCHEMES=self.setting.scheme,
            models=lambda _: {"creator": self.service},
        )

    def _handler(self, kind: str) -> Any:
        def handle(app: object, *, task: Any, delivery: Any, **more: Any) -> None:
            detail = str(more.get("progress", {}).get("percentage") or "")
            if (
                delivery.attempt is None and kind != "completed"
            ):  # a signed body that names the task alone: one message has one effect
                detail = hashlib.sha256(delivery.body or b"").hexdigest()[:20]
            self.db.session.add(self.effect(kind=kind, attempt=delivery.attempt, detail=detail))
            if self.is_broken:
                raise RuntimeError("The handlers fail.")

        return handle

    # --- the rows --------------------------------------------------------------------------------------------

    def _tables(self) -> dict[str, list[str]]:
        names = [name for (name,) in self._raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        names = [name for name in names if not name.startswith("sqlite_")]
        return {name: [row[1] for row in self._raw.execute(f"PRAGMA table_info({name})")] for name in sorted(names)}

    def _put_back(self, rows: Rows) -> None:
        if rows == self._in_database:
            return
        for table, columns in self.tables.items():
            if rows[table] is not self._in_database.get(table):
                self._raw.execute(f"DELETE FROM {table}")
                if rows[table]:
                    self._raw.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows[table])
        self._raw.commit()
        self._in_database = rows

    def _read(self) -> Rows:
        before = self._in_database
        rows = {}
        for table in self.tables:
            now = tuple(self._raw.execute(f"SELECT * FROM {table}"))
            rows[table] = before[table] if before.get(table) == now else now
        self._in_database = rows
        return rows

    def table(self, state: State, ending: str) -> list[dict[str, Any]]:
        """Return the rows of the table whose name ends like this, as mappings."""
        name = next(name for name in self.tables if name.endswith(ending))
        return [dict(zip(self.tables[name], row, strict=True)) for row in state.rows[name]]

    def task(self, state: State) -> dict[str, Any]:
        return self.table(state, "generation_tasks")[0]

    def deliveries(self, state: State) -> list[dict[str, Any]]:
        return self.table(state, "deliveries")

    # --- what may come next ----------------------------------------------------------------------------------

    def first(self) -> State:
        """The state after one task was submitted."""
        random.seed(0)
        with self.host.app.app_context():
            task = self.host.webhook.submit(topic="T")
            task.task_id = "00000000-0000-4000-8000-000000000001"
            task.creator_task_id = "00000000-0000-4000-8000-0000000000a1"
            task.callback_url = self.host.webhook.callback_url(task.task_id, 1)
            self.db.session.commit()
        self.task_id = "00000000-0000-4000-8000-000000000001"
        return State(self._read(), (), World(self.setting.budget), START)

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every step that may come next, in words, and the state after it."""
        for process, others in _each(state.processes):
            yield from self._goes_on(replace(state, processes=others), process)
            if state.world.budget.crashes and process.steps[-1].changes:
                yield self._dies(replace(state, processes=others), process)
        if len(state.processes) < self.setting.at_once:
            for does, world in self._operations(state):
                yield from self._goes_on(replace(state, world=world), Process(does))
        yield from self._of_the_service(state)
        if state.world.budget.ticks:
            yield from self._time_passes(state)

    def _dies(self, state: State, process: Process) -> tuple[str, State]:
        world = state.world.spend("crashes")
        if isinstance(process.does.about, Message):
            world = world.send(process.does.about)  # its sender gets no answer, and sends it again
        return f"{process.does} dies", replace(state, world=world)

    def _operations(self, state: State) -> Iterator[tuple[Operation, World]]:
        world, task, now = state.world, self.task(state), text_of(state.now)
        running = {process.does for process in state.processes}
        deliveries = self.deliveries(state)
        if task["status"] == "pending" and task["next_submit_at"] and task["next_submit_at"] <= now:
            yield Operation("sweep"), world
        if task["next_poll_at"] and task["next_poll_at"] <= now:
            yield Operation("poll"), world
        if any(row["next_retry_at"] and row["next_retry_at"] <= now for row in deliveries):
            yield Operation("worker"), world
            if world.budget.broken:
                yield Operation("worker", None, True), world.spend("broken")
        for message in dict.fromkeys(world.wire):
            callback = Operation("callback", message)
            yield callback, world.without(message)
            if world.budget.doubles and not message.is_forged:
                yield callback, world.spend("doubles")
            if world.budget.broken and self.setting.mode == "inline":
                yield Operation("callback", message, True), world.without(message).spend("broken")
        if world.budget.cancels and Operation("cancel") not in running:
            yield Operation("cancel"), world.spend("cancels")
        if world.budget.retries and task["status"] not in OPEN_STATES:
            yield Operation("retry"), world.spend("retries")
        if world.budget.replays:
            for row in deliveries:
                if row["source"] == "webhook" and row["verdict"] != Verdict.QUEUED:
                    yield Operation("replay", row["id"]), world.spend("replays")
        if world.budget.purges and any(row["verdict"] not in UNSETTLED for row in deliveries):
            yield Operation("purge"), replace(world.spend("purges"), is_purged=True, acknowledged=())

    def _of_the_service(self, state: State) -> Iterator[tuple[str, State]]:
        world, budget = state.world, state.world.budget
        for job in world.jobs:
            for said, after in self._turns(world, budget, job):
                yield said, replace(state, world=after)
        if budget.forged and world.jobs:
            job = world.jobs[-1]
            true = message_of(job, "completed", self.task_id)
            forged = replace(true, said=f"a forged 'completed' of job {job.number}", is_forged=True)
            forged = replace(forged, path=forged.path[:-4] + "AAAA", body=forged.body.replace("result", "forged"))
            yield "somebody forges a 'completed'", replace(state, world=world.spend("forged").send(forged))

    def _turns(self, world: World, budget: Budget, job: PaidJob) -> Iterator[tuple[str, World]]:
        number = job.number
        if job.state is RemoteState.OPEN:
            done = message_of(job, "completed", self.task_id)
            yield f"job {number} is done, and says so", world.change_job(job, RemoteState.COMPLETED).send(done)
            if budget.failures:
                failed = message_of(job, "failed", self.task_id)
                after = world.spend("failures").change_job(job, RemoteState.FAILED)
                yield f"job {number} fails, and says so", after.send(failed)
            if budget.progress:
                yield (
                    f"job {number} reports progress",
                    world.spend("progress").send(message_of(job, "progress", self.task_id)),
                )
        elif job.state is RemoteState.COMPLETED and budget.other_results:
            other = message_of(job, "completed", self.task_id, differs=True)
            yield f"job {number} reports another result", world.spend("other_results").send(other)

    def _time_passes(self, state: State) -> Iterator[tuple[str, State]]:
        """Let the time pass until something is due, and every process that is in a call renew its lease before."""
        if not all(process.is_in_call for process in state.processes):
            return
        now = text_of(state.now)
        due = [
            row[column]
            for ending in ("generation_tasks", "deliveries")
            for row in self.table(state, ending)
            for column in _DUE & row.keys()
            if row[column] and row[column] > now
        ]
        due += [row["checked_at"] for row in self.table(state, "alerts") if (row["checked_at"] or "") > now]
        if not due:
            return
        at = datetime.fromisoformat(min(due)).replace(tzinfo=UTC)
        holders = [process for process in state.processes if process.has_lease]
        if holders and at - timedelta(seconds=1) > state.now:
            at -= timedelta(seconds=1)
        said = f"{round((at - state.now).total_seconds())} s pass"
        after = replace(state, now=at, world=state.world.spend("ticks"))
        for process in holders:
            at_index = after.processes.index(process)
            others = after.processes[:at_index] + after.processes[at_index + 1 :]
            after = self._step(replace(after, processes=others), process, renew=True).after(
                replace(after, processes=others), process
            )
            said += f", in which {process.does} renews its lease"
        yield said, after

    # --- one step --------------------------------------------------------------------------------------------

    def _goes_on(self, state: State, process: Process) -> Iterator[tuple[str, State]]:
        choice, alternatives = 0, 1
        while choice < alternatives:
            done = self._step(state, process, choice=choice)
            yield f"{process.does} {'goes on' if process.steps else 'begins'}: {done.said}", done.after(state, process)
            choice, alternatives = choice + 1, done.alternatives

    def _step(self, state: State, process: Process, *, choice: int = 0, renew: bool = False) -> Done:
        """Do one more step of a process beside the others, or remember what comes of it."""
        of_rows = (state.rows_key, process, state.now, renew)
        of_world = (*of_rows, state.world.jobs, state.world.budget, choice)
        done = self._known.get(of_rows) or self._known.get(of_world)
        if done is None:
            done = self._run(state, process, choice=choice, renew=renew)
            self._known[of_world if done.is_call else of_rows] = done
        return done

    def _run(self, state: State, process: Process, *, choice: int, renew: bool) -> Done:
        """Bring a process back, and let it do one more step."""
        self._put_back(state.rows)
        self._forget()
        self.service.world = World(state.world.budget, state.world.jobs)
        self.is_broken = process.does.is_broken
        self.steps += 1
        random.seed(0)
        TAPE.start(process.steps, state.now, choice=choice, renew=renew)
        answer: int | str = ""
        has_ended = True
        try:
            answer = self._do(process.does)
        except Parked:
            has_ended = False
        finally:
            TAPE.stop()
            leases._memory.value.leases.clear()
            self._raw.rollback()
        steps = (*TAPE.steps, TAPE.live) if TAPE.live is not None else tuple(TAPE.steps)
        world = self.service.world
        return Done(
            said="; ".join(
                filter(None, [TAPE.live.said if TAPE.live else "", "it ends" if has_ended else "", str(answer)])
            ),
            rows=self._read(),
            process=None if has_ended else Process(process.does, steps, TAPE.has_lease, TAPE.is_in_call),
            jobs=world.jobs,
            budget=world.budget,
            wrongs=world.wrongs,
            answer=answer if isinstance(answer, int) else None,
            is_call=TAPE.is_call,
            alternatives=TAPE.alternatives,
        )

    def _forget(self) -> None:
        """Let the process have nothing in its memory, as one that has just begun."""
        state = self.host.state
        state.pauses.clear()
        for cooldowns in (state.strays_told, state.early_events):
            cooldowns._cooldowns.clear()
        state.refusals._memory = PerProcess(refusals._Memory)

    def _do(self, does: Operation) -> int | str:
        """Do all of an operation; return the status of the answer to a request, or why it was refused."""
        host, state = self.host, self.host.state
        with host.app.app_context(), suppress(HandlerFailed):
            try:
                match does.kind:
                    case "callback":
                        return self._post(does.about)
                    case "sweep":
                        submit_next(state)
                    case "poll":
                        host.webhook.reconcile()
                    case "worker":
                        retry_due_deliveries(state)
                    case "cancel":
                        host.webhook.cancel(self.task_id)
                    case "retry":
                        host.webhook.retry(self.task_id)
                    case "replay":
                        host.webhook.replay(does.about)
                    case "purge":
                        purge_deliveries(state, before=state.now() + timedelta(days=1))
            except DatabaseUnavailable as error:
                self._wrong(f"{does} finds the database away: {error.__cause__}")
            except WebhookError as refusal:
                return f"it is refused: {refusal.code}"
            except Exception as error:  # noqa: BLE001 - a story of its own
                self._wrong(f"{does} fails: {type(error).__name__}: {error}")
        return ""

    def _post(self, message: Message) -> int:
        body = message.body.encode()
        if self.setting.scheme == "url":
            return self.host.post(self.task_id, body, path=message.path).status_code
        return self.host.post_signed(self.task_id, body, self.setting.scheme).status_code

    def _wrong(self, what: str) -> None:
        self.service.world = replace(self.service.world, wrongs=(*self.service.world.wrongs, what))


def _order(process: Process) -> tuple[Any, ...]:
    return str(process.does), len(process.steps), hash(process)


def _each(processes: tuple[Process, ...]) -> Iterator[tuple[Process, tuple[Process, ...]]]:
    """Yield each process, and the others."""
    for number, process in enumerate(processes):
        yield process, processes[:number] + processes[number + 1 :]


def text_of(at: datetime) -> str:
    """Return a time as SQLite has it."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _effect_model(db: SQLAlchemy) -> type[Any]:
    return type(
        "Effect",
        (db.Model,),
        {
            "__tablename__": "effects",
            "id": mapped_column(sa.Integer, primary_key=True),
            "kind": mapped_column(sa.String(20)),
            "attempt": mapped_column(sa.Integer),
            "detail": mapped_column(sa.String(20)),
        },
    )
