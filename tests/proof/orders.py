"""Goes through every order of steps, depth first; of orders that differ only in steps that commute, one is enough.

Each order is run from the beginning: the same choices lead to the same steps. Which other orders have to be run is
learned from the races of those that were (source sets: Abdulla, Aronis, Jonsson, Sagonas, 2014): two steps that do not
commute, with nothing between them that keeps them apart, must also meet the other way round. What was tried first at a
branch need not be tried after a step that commutes with it (sleep sets: Godefroid, 1996).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from .gates import Lock, Step

__all__ = ["InTurn", "Orders", "can_never_meet", "commute"]

Commute = Callable[[Step, Step], bool]

_SKIPS = re.compile(r"\b(SKIP LOCKED|NOWAIT)\b", re.IGNORECASE)
"""What such a statement does not find, somebody else may have locked."""


def commute(one: Step, other: Step, *, snapshots: bool, waits: bool = True) -> bool:
    """Tell whether two steps of different actors have the same effect in either order.

    Args:
        one: a step.
        other: another one.
        snapshots: a transaction sees the whole database as it was at its first look.
        waits: it matters whether a statement that writes waits for a transaction to commit, or comes after it.
    """
    kinds, locks = {one.kind, other.kind}, {one.lock, other.lock}
    if locks == {Lock.TAKES}:
        return False
    if locks == {Lock.TAKES, Lock.HAS}:
        return not any(step.lock == Lock.HAS and step.kind in {"commit", "rollback"} for step in (one, other))
    if kinds == {"read"} or ("read" in kinds and kinds & {"begin", "write", "rollback"}):
        return True  # nobody sees what is not committed
    if any(step.kind in {"commit", "rollback"} and not step.tables for step in (one, other)):
        return True  # it only read
    if not (_skips(one.text) or _skips(other.text)):
        if "rollback" in kinds:
            return True  # nothing changes, and who waits for its locks gets them
        if not waits and kinds == {"write", "commit"}:
            return True
    if snapshots and "commit" in kinds:
        if one.looks or other.looks:
            return False
        if "read" in kinds:
            return True
    return not one.tables & other.tables


@cache
def _skips(text: str) -> bool:
    return _SKIPS.search(text) is not None


def can_never_meet(one: Step, other: Step) -> bool:
    """Tell whether one of two steps of different actors needs SQLite's lock, while the other one has it."""
    return {one.lock, other.lock} == {Lock.TAKES, Lock.HAS}


@dataclass
class _Branch:
    enabled: Mapping[int, Step]
    asleep: dict[int, Step]
    chosen: int = -1
    taken: Step | None = None
    wanted: set[int] = field(default_factory=set)
    done: dict[int, Step] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    @property
    def step(self) -> Step:
        return self.taken or self.enabled[self.chosen]

    def open_choices(self) -> list[int]:
        closed = {*self.asleep, *self.done, *self.refused}
        return [number for number in self.enabled if number not in closed]


class Orders:
    """Chooses, run after run, until every order was taken.

    Args:
        commutes: tells whether two steps have the same effect in either order.
        locks_rows_only: a statement that finds no row locks nothing, and is no more than a read.
    """

    def __init__(self, commutes: Commute, *, locks_rows_only: bool = False) -> None:
        self._commutes, self._locks_rows_only = commutes, locks_rows_only
        self._branches: list[_Branch] = []
        self._depth = self._new_from = 0
        self._before: list[set[int]] = []  # of each step of the last run, the steps that had to come before it
        self.is_redundant = False
        """True if the order that was taken last is equivalent to an earlier one."""
        self.unstable = 0
        """Orders whose beginning did not repeat itself."""

    def begin(self) -> None:
        """Begin a run."""
        self._depth, self.is_redundant = 0, False

    def choose(self, enabled: Mapping[int, Step]) -> int | None:
        if self.is_redundant:
            return None
        if self._depth < len(self._branches):
            branch = self._branches[self._depth]
            if enabled.get(branch.chosen) == branch.enabled[branch.chosen]:
                self._depth += 1
                return branch.chosen
            self.unstable += 1
            del self._branches[self._depth :]
            self._new_from = min(self._new_from, self._depth)
        branch = _Branch(dict(enabled), self._asleep(enabled))
        choices = branch.open_choices()
        if not choices:
            self.is_redundant = True
            return None
        branch.chosen = choices[0]
        branch.wanted.add(branch.chosen)
        self._branches.append(branch)
        self._depth += 1
        return branch.chosen

    def found_nothing(self, number: int) -> None:
        if self._locks_rows_only and self._depth and not self.is_redundant:
            branch = self._branches[self._depth - 1]
            step = branch.enabled[number]
            if branch.chosen == number and step.kind == "write" and not _skips(step.text):
                branch.taken = replace(step, kind="read")

    def was_refused(self, number: int) -> None:
        if self.is_redundant or not self._depth:
            return
        branch = self._branches[self._depth - 1]
        branch.refused.add(number)
        del self._branches[self._depth :]
        self._depth -= 1
        self._new_from = min(self._new_from, self._depth)
        choices = branch.open_choices()
        if not branch.done:
            branch.wanted.update(choices[:1])
        if wanted := [choice for choice in choices if choice in branch.wanted]:
            branch.chosen = wanted[0]
        else:
            self.is_redundant = True
            self._branches.pop()

    def go_on(self) -> bool:
        """Turn to the next order; False if there is none."""
        self._learn()
        while self._branches:
            branch = self._branches[-1]
            branch.done[branch.chosen] = branch.enabled[branch.chosen]
            if wanted := [choice for choice in branch.open_choices() if choice in branch.wanted]:
                branch.chosen, branch.taken = wanted[0], None
                self._new_from = len(self._branches) - 1
                return True
            self._branches.pop()
        return False

    def _asleep(self, enabled: Mapping[int, Step]) -> dict[int, Step]:
        if not self._branches:
            return {}
        parent = self._branches[-1]
        return {
            number: step
            for number, step in {**parent.asleep, **parent.done}.items()
            if number != parent.chosen and enabled.get(number) == step and self._commutes(step, parent.step)
        }

    def _learn(self) -> None:
        """At each step that was in a race, want a step with which the other one would have come first."""
        run = [(branch.chosen, branch.step) for branch in self._branches]
        before = self._before = self._before[: self._new_from]
        for place in range(len(before), len(run)):
            actor, step = run[place]
            own = [earlier for earlier in range(place) if run[earlier][0] == actor][-1:]
            others = [n for n in range(place) if run[n][0] != actor and not self._commutes(run[n][1], step)]
            before.append({n for link in (*own, *others) for n in (link, *before[link])})
            racing = [n for n in others if not can_never_meet(run[n][1], step)]
            kept_apart = {n for link in (*own, *racing) for n in before[link]}
            for earlier in racing:
                if earlier not in kept_apart:
                    rest = [n for n in range(earlier + 1, place) if earlier not in before[n]]
                    self._want(self._branches[earlier], set(_first_actors([*rest, place], run, before)))

    def _want(self, branch: _Branch, actors: set[int]) -> None:
        if not actors & branch.wanted:
            able = sorted(actors & set(branch.enabled))
            branch.wanted.update(able[:1] or branch.enabled)


def _first_actors(places: Sequence[int], run: Sequence[tuple[int, Step]], before: Sequence[set[int]]) -> Iterator[int]:
    """Return the actors whose step can be the first of those at some places."""
    for place in places:
        if not before[place] & set(places):
            yield run[place][0]


class InTurn:
    """Chooses one actor after the other, each to its end."""

    def __init__(self, turn: Sequence[int]) -> None:
        self._turn = turn

    def choose(self, enabled: Mapping[int, Step]) -> int:
        return next(number for number in self._turn if number in enabled)

    def found_nothing(self, number: int) -> None:
        pass

    def was_refused(self, number: int) -> None:
        raise AssertionError("nobody else has begun")
