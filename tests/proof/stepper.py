"""Takes several transactions through one order of their steps: one actor goes on, all others stand at their gates.

Whether an actor that went on now waits for a lock is never guessed from the time that passes: the database is asked.
An order ends at a lock that somebody holds; then that actor waits until the holder has gone on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from .gates import Gate, State, Step

__all__ = ["Chooser", "Happened", "LockView", "Standstill", "take"]

_LONGEST = 60.0
"""Seconds without any step, after which an order counts as a standstill."""
_WAITING = {
    "postgresql": "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted",
    "mysql": "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'",
}
"""How many transactions wait for a lock now. ``information_schema.innodb_trx`` would be up to 100 ms old."""


class Standstill(Exception):
    """Nobody goes on, and the database breaks no deadlock."""


class Chooser(Protocol):
    """Decides who goes on."""

    def choose(self, enabled: Mapping[int, Step]) -> int | None:
        """Return the number of one of the actors that stand at a gate; None ends the order, as nothing new follows."""

    def found_nothing(self, number: int) -> None:
        """Learn that the chosen actor's statement found no row."""

    def was_refused(self, number: int) -> None:
        """Learn that SQLite did not let the chosen actor begin; its step is not a part of the order."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One step of an order.

    Args:
        number: of the actor.
        step: what it did.
        answer: what came of it.
    """

    number: int
    step: Step
    answer: str


class LockView:
    """The database's own view of who waits; nobody else uses that server.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._query = _WAITING.get(sa.make_url(url).get_backend_name())
        self._engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._connection = self._engine.connect() if self._query else None

    def waiting(self) -> int:
        """Return how many transactions wait for a lock now; on SQLite an actor learns it by itself, at its gate."""
        if self._connection is None or self._query is None:
            return -1
        return int(self._connection.exec_driver_sql(self._query).one()[-1])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


def take(
    gates: Sequence[Gate], acts: Sequence[Callable[[], Any]], chooser: Chooser, locks: LockView
) -> tuple[list[Any], list[Happened]]:
    """Run the acts, each in a thread of its own, in the order that is chosen step by step.

    Where the order ends before they do, they go on as they like.

    Returns:
        What each act returned or raised, and the steps.

    Raises:
        Standstill: nothing goes on.
    """
    answers: list[Any] = [None] * len(acts)
    happened: list[tuple[int, Step]] = []
    words: dict[int, str] = {}
    last: dict[int, int] = {}

    def run(number: int) -> None:
        try:
            answers[number] = acts[number]()
        except Exception as error:  # noqa: BLE001 - it is judged later
            answers[number] = error
        finally:
            gates[number].finish()

    for gate in gates:
        gate.close()
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    chosen: int | None = None
    try:
        while True:
            _settle(gates, locks)
            if chosen is not None and gates[chosen].state == State.REFUSED:
                happened.pop()
                del last[chosen]
                chooser.was_refused(chosen)
            elif chosen is not None and happened[-1][1].kind in {"commit", "rollback"}:
                _let_refused_try_again(gates)
            for number, place in list(last.items()):
                if gates[number].state == State.RUNNING:
                    words[place] = "waits for a lock"
                else:
                    waited = "waited, then " if place in words else ""
                    words[place] = waited + (gates[number].answer or "done")
                    if gates[number].answer == "0 rows" and number == chosen:
                        chooser.found_nothing(number)
                    del last[number]
            if all(gate.state == State.DONE for gate in gates):
                break
            enabled = {n: gate.next for n, gate in enumerate(gates) if gate.state == State.AT_GATE and gate.next}
            if not enabled:
                _wait_for_any(gates)
                chosen = None
                continue
            chosen = chooser.choose(enabled)
            if chosen is None:
                break
            last[chosen] = len(happened)
            happened.append((chosen, enabled[chosen]))
            gates[chosen].let_through()
    finally:
        for gate in gates:
            gate.open()
        for thread in threads:
            thread.join(_LONGEST)
    return answers, [Happened(number, step, words.get(place, "")) for place, (number, step) in enumerate(happened)]


def _settle(gates: Sequence[Gate], locks: LockView) -> None:
    """Return once each actor stands at its gate, has ended, or waits for a lock."""
    changed, end = gates[0].changed, time.monotonic() + _LONGEST
    while True:
        with changed:
            changed.wait_for(lambda: not _running(gates), 0.002)
            running = _running(gates)
        if not running or locks.waiting() == running:
            return
        if time.monotonic() > end:
            raise Standstill(f"{running} actors neither go on nor wait for a lock")


def _wait_for_any(gates: Sequence[Gate]) -> None:
    """Wait until the database has broken a deadlock."""
    with gates[0].changed:
        if not gates[0].changed.wait_for(lambda: any(gate.state == State.AT_GATE for gate in gates), _LONGEST):
            raise Standstill("all actors wait, or are refused, and nobody goes on")


def _let_refused_try_again(gates: Sequence[Gate]) -> None:
    for gate in gates:
        if gate.state == State.REFUSED:
            gate.state = State.AT_GATE


def _running(gates: Sequence[Gate]) -> int:
    return sum(gate.state == State.RUNNING for gate in gates)
