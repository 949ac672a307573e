"""Every pair of events on one task, in two transactions, in every order of their statements that the locks allow."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, combinations_with_replacement, permutations
from pathlib import Path
from typing import Any

from flask_contenthub_webhook.creators import RemoteState
from flask_contenthub_webhook.runtime.state import WebhookState
from tests.support.host import Host

from .databases import database
from .effects import host_with_effects
from .gates import Gate, sqlite_options, watch
from .judge import Found, allowed, audited, broken, find
from .kinds import CALLBACKS, KINDS, Answer, base_of, bring_up_to, make_task
from .orders import InTurn, Orders, commute
from .results import PartResult
from .rows import Rows
from .service import Books, LedgerCreator
from .side_by_side import Kept, Share, prove_on_each
from .stepper import Chooser, Happened, LockView, Standstill, take

__all__ = ["Case", "prove"]

_PAIR, MOST_ACTORS = 2, 3
_KINDS_OF = {"mariadb": ("mariadb", "mariadb repeatable read")}
"""Of MariaDB, READ COMMITTED, which the extension sets, and its own default, which some logs need."""
_SLICE_SECONDS = 7.0
"""Of each kind of database, in a slice."""
_LEASE = timedelta(minutes=10)
"""Longer than any lease of a delivery."""
_IDLE = {
    ("timed out", "pending"),  # it has no job yet,
    ("poll's completed", "pending"),
    ("timed out", "failed"),  # is not asked about,
    ("poll's completed", "failed"),
    ("failed", "failed"),  # or what comes is of an attempt that is over
    ("progress", "failed"),
}
"""Events that have no effect on a task in some state, whatever comes beside them."""
_ENOUGH = 10
"""Stories, after which a database is not looked at further."""


@dataclass(frozen=True, slots=True)
class Case:
    """Some events at once.

    Args:
        kinds: of the events, in the order in which they came, if they wait in the inbox.
        base: the state of the task before.
        inbox: callbacks wait in the inbox, and workers claim them; else they are applied inline.
        is_one: it is one callback, and for the second worker the lease of the first one is over.
    """

    kinds: tuple[str, ...]
    base: str
    inbox: bool
    is_one: bool = False

    @property
    def able(self) -> Iterator[str]:
        """The events that must have their effect in some order; what waits behind another callback may never do so."""
        for place, name in enumerate(self.kinds):
            is_behind = self.inbox and (
                name == "poll's completed" or (place > 0 and {name, self.kinds[place - 1]} <= {*CALLBACKS})
            )
            if not is_behind and (name, self.base) not in _IDLE:
                yield name

    def __str__(self) -> str:
        ways = "claimed from the inbox" if self.inbox else "inline"
        if self.is_one:
            ways = "one callback, claimed again after its lease"
        return f"{' + '.join(self.kinds)}, on a task that is {self.base}, {ways}"


def cases(*, actors: int = _PAIR) -> Iterator[Case]:
    """Return every case; with three actors, those of which one completes the task."""
    for kinds in combinations_with_replacement(KINDS, actors):
        if actors > _PAIR and "completed" not in kinds:
            continue
        base = base_of(kinds)
        yield Case(kinds, base, inbox=False)
        if actors == _PAIR and any(kind in CALLBACKS for kind in kinds):
            for order in dict.fromkeys((kinds, kinds[::-1])):
                yield Case(order, base, inbox=True)
    if actors == _PAIR:
        yield from (Case((name, name), "submitted", inbox=True, is_one=True) for name in CALLBACKS)


@dataclass
class Arena:
    """A database with the applications of the actors, and one that looks on.

    Args:
        kind: of the database.
        url: of the database.
        folder: an empty one.
    """

    kind: str
    url: str
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    stories: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._made: dict[tuple[str, bool], tuple[Rows, str, datetime, str, int | None]] = {}
        self.books = Books(self.folder / "books")
        self.observer = host_with_effects(self.url)
        changed = threading.Condition()
        self.gates = [Gate(f"actor {number}", changed, self.kind == "sqlite") for number in range(MOST_ACTORS)]
        self.actors = [self._actor(gate) for gate in self.gates]
        self.locks = LockView(self.url)

    def close(self) -> None:
        self.locks.close()
        for host in (self.observer, *self.actors):
            host.close()

    def _actor(self, gate: Gate) -> Host:
        options = sqlite_options(gate) if self.kind == "sqlite" else {}
        host = host_with_effects(self.url, create_tables=False, engine_options=options)
        watch(host.engine, gate)
        return host

    # --- one case --------------------------------------------------------------------------------------------

    def go_through(self, case: Case) -> None:
        """Take a case through every order."""
        clock = self.observer.clock
        task_id, parked = self._task(case.base, with_parked="replay" in case.kinds)
        bring_up_to(self.observer, task_id, case.kinds[: 1 if case.is_one else None], inbox=case.inbox)
        books, before = self.books.text, find(self.observer, task_id)
        rows = Rows(self.observer.engine, self.observer.db.metadata)
        gates = self.gates[: len(case.kinds)]

        def once(chooser: Chooser) -> Found | None:
            rows.put_back()
            self.books.text = books
            acts = []
            for number, (gate, name) in enumerate(zip(gates, case.kinds, strict=True)):
                gate.name = f"{chr(65 + number)} ({name})"
                actor = self.actors[number]
                _forget(actor.state)
                actor.clock.now = clock.now + (_LEASE if case.is_one and number else timedelta())
                actor.state.creator = LedgerCreator(self.books, says=KINDS[name].says, at=gate.call)
                acts.append(partial(_act, actor, name, task_id, parked, case.inbox))
            try:
                answers, happened = take(gates, acts, chooser, self.locks)
            except Standstill as trouble:
                self.stories.append(f"{case} on {self.kind}: {trouble}")
                return None
            self.counts["runs"] += 1
            if isinstance(chooser, Orders) and chooser.is_redundant:
                return None
            self.counts["steps"] += len(happened)
            if case.inbox:
                _forget(self.observer.state)
                self.observer.retry()
            found = find(self.observer, task_id)
            effective.update(_effective(case, before, found))
            wrong = list(self._wrong(case, before, answers, found, serial))
            if found.outcome not in seen:  # an audit costs as much as an order
                seen.add(found.outcome)
                wrong += audited(self.observer)
            if wrong:
                self.stories.append(_story(case, self.kind, gates, happened, answers, found, wrong))
            return found

        effective: set[str] = set()
        seen: set[tuple[Any, ...]] = set()
        serial: set[tuple[Any, ...]] = set()
        ends: set[tuple[Any, ...]] = set()
        for _ in range(2):  # the first time, connections and statements are new
            for turn in permutations(range(len(case.kinds))):
                if (found := once(InTurn(turn))) is not None:
                    ends.add(found.outcome)
        if all(KINDS[name].is_one_transaction for name in case.kinds):
            serial |= ends
        commutes = partial(commute, snapshots=self.kind == "mariadb repeatable read", waits=len(case.kinds) == _PAIR)
        orders = Orders(commutes, locks_rows_only=self.kind == "postgresql")
        told = len(self.stories)
        while len(self.stories) == told:  # one counterexample of a case is enough
            orders.begin()
            once(orders)
            self.counts["orders"] += not orders.is_redundant
            if not orders.go_on():
                break
        self.counts["unstable"] += orders.unstable
        if len(self.stories) == told:
            idle = [name for name in case.able if name not in effective]
            self.stories += [f"{case} on {self.kind}: '{name}' had no effect in any order" for name in idle]
        rows.empty()

    def _task(self, base: str, *, with_parked: bool) -> tuple[str, int | None]:
        """Make a task, the first time by the ways of the package, later by its rows."""
        made = self._made.get((base, with_parked))
        if made is None:
            task_id, parked = make_task(self.observer, self.books, base, with_parked=with_parked)
            rows = Rows(self.observer.engine, self.observer.db.metadata)
            made = self._made[base, with_parked] = (rows, self.books.text, self.observer.clock.now, task_id, parked)
        rows, self.books.text, self.observer.clock.now, task_id, parked = made
        rows.put_back()
        return task_id, parked

    def _wrong(
        self, case: Case, before: Found, answers: Sequence[Any], found: Found, serial: set[tuple[Any, ...]]
    ) -> Iterator[str]:
        yield from broken(found, "pending")
        rows = {row["id"]: row for row in found.deliveries}
        for name, answer in zip(case.kinds, answers, strict=True):
            if not isinstance(answer, Answer):
                yield f"{name} raised {type(answer).__name__}: {answer}"
            elif answer.is_trouble or (answer.is_left and not case.inbox):
                yield f"{name} was answered {answer.words}"
            elif answer.delivery_id is not None and answer.delivery_id not in rows:
                yield f"{name} was answered {answer.words}, and its row is gone"
            elif answer.delivery_id is not None and rows[answer.delivery_id]["verdict"] != answer.verdict:
                yield f"{name} was answered {answer.words}, and its row says {rows[answer.delivery_id]['verdict']}"
        old = {row["id"] for row in before.deliveries if row["verdict"] != "queued"}
        came = {(row["source"], row["event"]) for row in found.deliveries if row["id"] not in old}
        kinds = [KINDS[name] for name in case.kinds]
        triggers = [kind.trigger for kind in kinds if (kind.source, kind.event) in came]
        now = (found.task["status"], found.task["attempt"])
        if now not in (ends := allowed(before.task, triggers, max_retries=1)):
            yield f"the table allows {sorted(ends)} in one order or another, and the task is {now}"
        if serial and found.outcome not in serial:
            yield f"no serial run ends with {found.outcome}, but with {sorted(serial, key=str)}"
        yield from self._paid_in_vain(found)
        waiting = [row["id"] for row in found.deliveries if row["verdict"] == "queued"]
        if waiting:
            yield f"the deliveries {waiting} still wait after the last worker"

    def _paid_in_vain(self, found: Found) -> Iterator[str]:
        jobs = self.books.jobs
        for (_, attempt), count in Counter((job.task_id, job.attempt) for job in jobs).items():
            if count > 1:
                yield f"attempt {attempt} was submitted {count} times"
        if found.task["status"] in {"cancelled", "timeout"} and found.task["next_poll_at"] is None:
            for job in jobs:
                if job.state is RemoteState.OPEN:
                    yield f"the job {job.name} goes on, and nobody will ever stop it"


def _effective(case: Case, before: Found, found: Found) -> set[str]:
    """Return the events of a case that had an effect."""
    old = {row["id"] for row in before.deliveries if row["verdict"] == "processed"}
    done = {
        (row["source"], row["event"])
        for row in found.deliveries
        if row["verdict"] == "processed" and row["id"] not in old
    }
    return {name for name in case.kinds if (KINDS[name].source, KINDS[name].event) in done}


def _act(host: Host, name: str, task_id: str, parked: int | None, inbox: bool) -> Answer:
    if inbox and name in CALLBACKS:
        with host.app.app_context():
            report = host.webhook.retry_due_deliveries(limit=1)
        words = ", ".join(f"{verdict} {count}" for verdict, count in report.outcomes.items())
        return Answer(f"applied {words or 'nothing'}", is_trouble=report.interrupted or "failed" in report.outcomes)
    return KINDS[name].act(host, task_id, parked)


def _forget(state: WebhookState) -> None:
    """Let an application remember no more than a new process."""
    made: Any = {one.name: one.default_factory for one in fields(WebhookState)}
    for name in ("pauses", "strays_told", "early_events"):
        setattr(state, name, made[name]())
    state.store.inbox._was_full = False


def _story(
    case: Case,
    kind: str,
    gates: Sequence[Gate],
    happened: Sequence[Happened],
    answers: Sequence[Any],
    found: Found,
    wrong: Sequence[str],
) -> str:
    lines = [f"{case}, on {kind}:"]
    for number, one in enumerate(happened, 1):
        lines.append(f"  {number:2}. {gates[one.number].name}: {one.step.short} -> {one.answer}")
    for gate, answer in zip(gates, answers, strict=True):
        lines.append(f"  {gate.name} is told: {answer.words if isinstance(answer, Answer) else repr(answer)}")
    lines += [f"  {line}" for line in found.lines]
    return "\n".join([*lines, *(f"  BROKEN: {line}" for line in wrong)])


# --- the part ----------------------------------------------------------------------------------------------------


def prove(*, whole: bool, databases: Sequence[str], say: Callable[[str], None]) -> PartResult:
    """Go through every case on every kind of database; in a slice, through as many as there is time for."""
    kinds = [kind for name in databases for kind in _KINDS_OF.get(name, (name,))]
    return prove_on_each("interleavings", go_through_all, kinds, whole=whole, say=say)


def go_through_all(kind: str, share: Share | None) -> Kept:
    """Go through a share of the cases on one kind of database, or through a slice of them."""
    kept, started = Kept(), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proof-")))
        arena = Arena(kind, stack.enter_context(database(kind)), folder)
        stack.callback(arena.close)
        for case in _chosen(share):
            arena.go_through(case)
            kept.counts["cases"] += 1
            is_late = share is None and time.monotonic() - started > _SLICE_SECONDS
            if is_late or len(arena.stories) >= _ENOUGH:
                break
    kept.counts += arena.counts
    kept.stories += arena.stories
    figures = ", ".join(f"{number:,} {name}" for name, number in kept.counts.items())
    kept.lines.append(f"{kind}: {figures}, {len(arena.stories)} stories, {time.monotonic() - started:.0f} s")
    return kept


def _chosen(share: Share | None) -> Iterator[Case]:
    if share is not None:
        yield from share.of(chain(cases(), cases(actors=3)))
        return
    inline = [case for case in cases() if not case.inbox]
    yield from inline[::9]
    yield from [case for case in cases() if case.inbox][::9]
