"""The choice of orders in the proof: of those that differ only in steps that commute, one is taken, and few in vain."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from tests.proof.gates import Lock, Step
from tests.proof.orders import Orders, commute

commutes = partial(commute, snapshots=False)
Program = Sequence[Step]
Order = tuple[tuple[int, int], ...]
"""Pairs of an actor and the number of its step."""


def programs(seed: int) -> list[Program]:
    """Make two or three actors with a few statements, in transactions; half of the worlds have SQLite's lock."""
    rng = random.Random(seed)
    has_lock = rng.random() < 0.5
    return [list(_program(rng, has_lock=has_lock)) for _ in range(rng.choice([2, 2, 3]))]


def _program(rng: random.Random, *, has_lock: bool) -> Iterator[Step]:
    for _ in range(rng.choice([1, 1, 2])):
        lock, written = Lock.NOTHING, set[str]()
        if has_lock and rng.random() < 0.2:
            table = rng.choice("xyz")
            yield Step("commit", f"WITH {table}", frozenset({table}), Lock.TAKES)
        if has_lock and rng.random() < 0.5:
            yield Step("begin", "BEGIN", lock=Lock.TAKES)
            lock = Lock.HAS
        for _ in range(rng.randint(1, 2)):
            table = rng.choice("xyz")
            if rng.random() < 0.4:
                yield Step("read", table, frozenset(table), lock)
                continue
            yield Step("write", table, frozenset({table}), Lock.TAKES if has_lock and lock == Lock.NOTHING else lock)
            written.add(table)
            lock = Lock.HAS if has_lock else lock
        end = rng.choice(["commit", "commit", "rollback"])
        yield Step(end, end.upper(), frozenset(written), lock)


class World:
    """Where each actor is, and who holds the lock."""

    def __init__(self, actors: Sequence[Program]) -> None:
        self._actors = actors
        self.places = [0] * len(actors)
        self.order: list[tuple[int, int]] = []
        self._holder: int | None = None

    def enabled(self, *, also_refused: bool = True) -> dict[int, Step]:
        steps = {n: self._actors[n][place] for n, place in enumerate(self.places) if place < len(self._actors[n])}
        return {n: step for n, step in steps.items() if also_refused or not self.is_refused(n, step)}

    def is_refused(self, actor: int, step: Step) -> bool:
        return step.lock == Lock.TAKES and self._holder not in {None, actor}

    def take(self, actor: int) -> None:
        step = self._actors[actor][self.places[actor]]
        if step.lock == Lock.TAKES and step.kind != "commit":
            self._holder = actor
        elif self._holder == actor and step.kind in {"commit", "rollback"}:
            self._holder = None
        self.order.append((actor, self.places[actor]))
        self.places[actor] += 1


def all_orders(actors: Sequence[Program]) -> Iterator[Order]:
    """Yield every order that the lock allows."""

    def go_on(chosen: list[int]) -> Iterator[Order]:
        world = World(actors)
        for actor in chosen:
            world.take(actor)
        enabled = world.enabled(also_refused=False)
        if not enabled:
            yield tuple(world.order)
        for actor in enabled:
            yield from go_on([*chosen, actor])

    yield from go_on([])


def meaning(order: Order, actors: Sequence[Program]) -> frozenset[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the pairs of steps of which it matters which came first: equal for orders that are equivalent."""
    return frozenset(
        (one, other)
        for place, one in enumerate(order)
        for other in order[place + 1 :]
        if one[0] != other[0] and not commutes(actors[one[0]][one[1]], actors[other[0]][other[1]])
    )


def taken(actors: Sequence[Program]) -> tuple[list[Order], int]:
    """Return the orders that are taken to their end, and the number of the others."""
    orders, found, redundant = Orders(commutes), list[Order](), 0
    while True:
        orders.begin()
        world, refused = World(actors), set[int]()
        while enabled := {n: step for n, step in world.enabled().items() if n not in refused}:
            actor = orders.choose(enabled)
            if actor is None:
                break
            if world.is_refused(actor, enabled[actor]):
                refused.add(actor)
                orders.was_refused(actor)
                continue
            world.take(actor)
            if actors[actor][world.places[actor] - 1].kind in {"commit", "rollback"}:
                refused.clear()
        if orders.is_redundant:
            redundant += 1
        else:
            found.append(tuple(world.order))
        if not orders.go_on():
            return found, redundant


@pytest.mark.parametrize("seed", range(150))
def test_every_order_has_an_equivalent_one_that_is_taken_once(seed: int) -> None:
    actors = programs(seed)
    if len([step for program in actors for step in program]) > 11:
        actors = actors[:2]
    found, _ = taken(actors)

    meanings = [meaning(order, actors) for order in found]
    assert len(meanings) == len(set(meanings)), "an order is taken twice"
    assert set(meanings) == {meaning(order, actors) for order in all_orders(actors)}


def test_hardly_an_order_is_begun_in_vain() -> None:
    figures = [(len(found), redundant) for found, redundant in map(taken, map(programs, range(300)))]

    assert sum(redundant for _, redundant in figures) < 0.2 * sum(count for count, _ in figures), figures


@pytest.mark.parametrize(
    ("kind", "looks", "snapshots", "expected"),
    [
        ("read", False, False, False),
        ("read", True, True, False),
        ("read", False, True, True),
        ("write", False, True, False),
        ("write", True, True, False),
    ],
)
def test_what_a_commit_of_the_same_rows_is_to_another_transaction(
    kind: str, looks: bool, snapshots: bool, expected: bool
) -> None:
    """With snapshots, a transaction that has looked sees no later commit; it writes to the newest row."""
    rows = frozenset("x")
    step, commit = Step(kind, "x", rows, looks=looks), Step("commit", "COMMIT", rows)
    assert commute(step, commit, snapshots=snapshots) is expected
    assert commute(commit, step, snapshots=snapshots) is expected


def test_a_first_look_at_other_rows_is_a_look_at_all() -> None:
    look, commit = Step("read", "y", frozenset("y"), looks=True), Step("commit", "COMMIT", frozenset("x"))
    assert commute(look, commit, snapshots=False)
    assert not commute(look, commit, snapshots=True)
