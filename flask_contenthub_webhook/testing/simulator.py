"""A creator on loopback: the API, callbacks and deaths of the real one, and faults to switch on by rate."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from ..runtime.shutdown import stop_on_signals, wait_for_stop
from .behaviour import Behaviour
from .faults import Faults
from .ledger import CallbackRecord, Ledger, TaskRecord, TaskState
from .supervisor import Supervisor

__all__ = ["CreatorSimulator", "run_simulator"]

_T = TypeVar("_T")


class CreatorSimulator:
    """A creator on loopback, for tests, demos and soaks.

    It behaves as the real content-creator was measured to: its API blocks until the work is done and dies of certain
    calls, its callbacks go out one at a time from a queue in memory. The creator's own record of each task stays
    readable in :attr:`tasks`, even while it is dead.

    Use it as a context manager, or with :meth:`start` and :meth:`stop`. All methods may be called from any thread.
    Seconds are real seconds, except for the creator's own constants, which ``time_scale`` scales.

    Args:
        port: where to listen; 0 takes a free port, which is kept over deaths and restarts.
        host: the loopback address to listen on.
        time_scale: factor for the creator's own times: 10 s for an answer, 5 s between tries.
        callback_timeout: seconds that a receiver has to answer, if ``time_scale`` would make the 10 s too short.
        work_time: shortest and longest time that a task takes, in seconds; with None it takes until :meth:`finish`.
        callback_offset: earliest and latest time of the callback, in seconds after the answer to the submission;
            negative ones are before it.
        faults: the rates of faults.
        api: ``real``, with the calls that kill it, or ``paper``, with the answers of its documentation.
        database: ``sqlite``, or ``postgres``, where the list and any result kill a ``real`` one and rows look
            different.
        gateway: put a gateway in front, which answers 502 while the creator is dead; see :meth:`begin_outage`.
        orphans: the state, after a restart, of tasks that were being worked on: ``running`` for good, as observed, or
            ``failed``. Neither calls back.
        restart_after: seconds after which a supervisor starts it again when a call or a fault has killed it; None
            leaves it dead.
        latency: seconds before any answer of the API.
        seed: makes every draw repeatable, for the same task ids; None draws one, see :attr:`seed`.
        clock: the time in rows, callbacks and ids. It does not change how long anything takes.
        state_path: an SQLite file with all that :attr:`tasks` and the other attributes show, for a simulator in a
            separate process; :func:`~flask_contenthub_webhook.testing.read_ledger` reads it. What an earlier process
            left there is loaded as after a crash.
        tls: for https receivers; None trusts the system's certificates.
        keep_bodies: keep the bodies in the log of callbacks.

    Raises:
        ValueError: an option is not valid.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        time_scale: float = 1.0,
        callback_timeout: float | None = None,
        work_time: tuple[float, float] | None = (0.0, 0.0),
        callback_offset: tuple[float, float] = (-0.001, 0.002),
        faults: Faults | None = None,
        api: Literal["real", "paper"] = "real",
        database: Literal["sqlite", "postgres"] = "sqlite",
        gateway: bool = False,
        orphans: Literal["running", "failed"] = "running",
        restart_after: float | None = 1.0,
        latency: float = 0.0,
        seed: int | None = None,
        clock: Callable[[], datetime] | None = None,
        state_path: Path | str | None = None,
        tls: ssl.SSLContext | None = None,
        keep_bodies: bool = True,
    ) -> None:
        self._behaviour = Behaviour(
            seed=int.from_bytes(os.urandom(4)) if seed is None else seed,
            time_scale=time_scale,
            callback_timeout=callback_timeout,
            work_time=work_time,
            callback_offset=callback_offset,
            faults=Faults() if faults is None else faults,
            api=api,
            database=database,
            orphans=orphans,
            latency=latency,
            clock=(lambda: datetime.now(UTC)) if clock is None else clock,
            tls=tls,
            keep_bodies=keep_bodies,
        )
        self._ledger = Ledger()
        self._state_path = None if state_path is None else Path(state_path)
        self._supervisor = Supervisor(
            self._behaviour, self._ledger, host=host, port=port, restart_after=restart_after, gateway=gateway
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- life and death -------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start to listen; return when calls are answered.

        Raises:
            OSError: the port is taken.
            RuntimeError: it is started already.
        """
        if self._thread is not None:
            raise RuntimeError("The simulator is started already.")
        self._supervisor.reserve_port()
        try:
            if self._state_path is not None:
                self._ledger.open(self._state_path)
        except BaseException:
            self._supervisor.release_port()
            raise
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="creator-simulator", daemon=True)
        self._thread.start()
        try:
            self._run(self._supervisor.open_gateway())
            self._run(self._supervisor.boot())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop listening and working, drop the queue, and end the thread. The attributes stay readable."""
        if self._thread is None or self._loop is None:
            return
        self._run(self._supervisor.shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._supervisor.release_port()
        self._ledger.close()
        self._thread = self._loop = None

    def crash(self, *, restart_after: float | None = None) -> None:
        """Die at once: connections are cut without an answer, work stops, queued callbacks are lost.

        Args:
            restart_after: seconds after which the supervisor starts it again; None leaves it dead until
                :meth:`restart`.
        """
        self._run(self._supervisor.crash("crash", restart_after))

    def restart(self, *, after: float = 0.0) -> None:
        """Die, if it is not dead yet, and listen again after this many seconds; return when it does."""
        self._run(self._supervisor.restart(after))

    def begin_outage(self, seconds: float, answers: Sequence[int] = (502, 504, 200, 429)) -> None:
        """Let the gateway answer every call itself for a while. The creator works on meanwhile, and calls back.

        Args:
            seconds: of the simulator's clock.
            answers: the statuses, each for the same share of the time; 200 has a page about maintenance, and 429 a
                Retry-After.

        Raises:
            RuntimeError: there is no gateway.
        """
        if self._supervisor.gateway is None:
            raise RuntimeError("The simulator has no gateway: CreatorSimulator(gateway=True).")
        self._supervisor.gateway.begin_outage(seconds, answers)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- what happened --------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The URL of the API, such as ``http://127.0.0.1:41234``; known once it was started."""
        return f"http://{self._supervisor.host}:{self._supervisor.port}"

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self._behaviour.seed

    @property
    def up(self) -> bool:
        """True while it is alive."""
        return self._supervisor.process is not None

    @property
    def idle(self) -> bool:
        """True if nothing more happens by itself: no work, no callback on its way, no restart to come."""
        process = self._supervisor.process
        return process.idle if process is not None else not self._supervisor.will_boot

    @property
    def tasks(self) -> dict[str, TaskRecord]:
        """A copy of the creator's record of every task, by id, oldest first."""
        return self._ledger.tasks()

    @property
    def callbacks(self) -> tuple[CallbackRecord, ...]:
        """All requests of callbacks with their faults and answers, and the callbacks that were never sent."""
        return self._ledger.callbacks()

    @property
    def requests(self) -> Counter[str]:
        """The number of API calls by route, such as ``"GET /api/tasks/:id"``."""
        return self._ledger.counts("requests")

    @property
    def answered_by_gateway(self) -> Counter[int]:
        """The number of API calls that the gateway answered itself, by status."""
        gateway = self._supervisor.gateway
        return Counter() if gateway is None else Counter(gateway.answered)

    @property
    def asked(self) -> Counter[str]:
        """The number of API calls about a single task (row, status, result), by its id."""
        return self._ledger.counts("asked")

    @property
    def refused(self) -> tuple[str, ...]:
        """The ids of submissions that ``Faults.refuse`` refused."""
        return self._ledger.refused()

    @property
    def deaths(self) -> int:
        """The number of its deaths."""
        return len(self._ledger.deaths())

    @property
    def death_reasons(self) -> tuple[str, ...]:
        """The reason of each death."""
        return self._ledger.deaths()

    # --- steering -------------------------------------------------------------------------------------------

    def finish(self, task_id: str, *, error: str | None = None) -> None:
        """End the work on a task now.

        Args:
            task_id: the creator's id.
            error: the message with which it fails; with None it completes, unless its faults make it fail.

        Raises:
            LookupError: it is not being worked on.
        """

        async def finish() -> bool:
            process = self._supervisor.process
            return process is not None and process.workshop.finish(task_id, error)

        if not self._run(finish()):
            raise LookupError(f"No task {task_id} is being worked on.")

    def add_task(
        self,
        task_id: str | None = None,
        *,
        state: TaskState = "running",
        topic: str = "T",
        callback_url: str | None = None,
        error: str | None = None,
        result: dict[str, Any] | None = None,
        created_at: datetime | None = None,
        finished_at: datetime | None = None,
    ) -> TaskRecord:
        """Add a task to the creator's database that was never submitted, so it is not worked on and does not call back.

        Its faults are drawn as for any other, but only ``hang`` has an effect. A task with the same id is replaced.
        """
        task_id = str(uuid.uuid4()) if task_id is None else task_id
        now = self._behaviour.clock() if created_at is None else created_at
        is_final = state in {"completed", "failed"}
        record = TaskRecord(
            number=self._ledger.next_number(),
            id=task_id,
            state=state,
            mode="sync",
            topic=topic,
            requirements="R",
            target_audience="A",
            priority=2,
            callback_url=callback_url,
            created_at=now,
            updated_at=finished_at or now,
            finished_at=(finished_at or now) if is_final else None,
            error=error,
            result=result,
            faults=self._behaviour.faults.of(self.seed, task_id).names,
        )
        self._ledger.put(record)
        return record

    def wait_until_idle(self, timeout: float = 30.0) -> None:
        """Wait until :attr:`idle`.

        Raises:
            TimeoutError: it is not idle within this many seconds.
        """
        self._wait(lambda: self.idle, timeout, "idle")

    def wait_until_up(self, timeout: float = 30.0) -> None:
        """Wait until a supervisor has started it again.

        Raises:
            TimeoutError: it is not up within this many seconds.
        """
        self._wait(lambda: self.up, timeout, "up")

    # --- inside ---------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"The simulator is not {what} after {timeout:g} s.")
            time.sleep(0.002)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            work.close()
            raise RuntimeError("The simulator is not started.")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def run_simulator(
    *,
    announce: Callable[[CreatorSimulator], None] | None = None,
    simulator: CreatorSimulator | None = None,
    **options: Any,
) -> CreatorSimulator:
    """Run a simulator until SIGTERM or SIGINT. Call it in the main thread.

    Args:
        announce: called once it listens; by default its URL is printed to stdout, alone on a line.
        simulator: the simulator to run; by default one with the options.
        **options: those of :class:`CreatorSimulator`.

    Returns:
        The simulator, which is stopped; its attributes are still readable.
    """
    simulator = CreatorSimulator(**options) if simulator is None else simulator
    stopped = threading.Event()
    with stop_on_signals(stopped.set), simulator:
        (announce or _print_url)(simulator)
        wait_for_stop(stopped)
    return simulator


def _print_url(simulator: CreatorSimulator) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(simulator.base_url, flush=True)  # noqa: T201 - the parent process waits for this line
