"""Goes through every order of steps, depth first; of orders that differ only in steps that commute, one is enough.

Each order is run from the beginning: the same choices lead to the same steps. The orders that need not be run are those
of sleep sets (Godefroid, 1996): what was tried first at a branch need not be tried after a step that commutes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .gates import Step

__all__ = ["InTurn", "Orders", "commute"]

Commute = Callable[[Step, Step], bool]


def commute(one: Step, other: Step, *, snapshots: bool) -> bool:
    """Tell whether two steps of different actors have the same effect in either order.

    Args:
        one: a step.
        other: another one.
        snapshots: a transaction sees the whole database as it was at its first statement.
    """
    kinds = {one.kind, other.kind}
    if kinds == {"read"}:
        return True
    if "begin" in kinds:  # of a transaction that writes: one at a time
        return "read" in kinds
    if "read" in kinds and kinds & {"write", "rollback"}:
        return True  # nobody sees what is not committed
    if any(step.kind in {"commit", "rollback"} and not step.tables for step in (one, other)):
        return True  # it only read
    if snapshots and "commit" in kinds:
        return False
    return not one.tables & other.tables


@dataclass
class _Branch:
    enabled: Mapping[int, Step]
    asleep: dict[int, Step]
    chosen: int = -1
    taken: Step | None = None
    done: dict[int, Step] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

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
        self._depth = 0
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
            if branch.chosen in enabled:
                self._depth += 1
                return branch.chosen
            self.unstable += 1
            del self._branches[self._depth :]
        branch = _Branch(dict(enabled), self._asleep(enabled))
        choices = branch.open_choices()
        if not choices:
            self.is_redundant = True
            return None
        branch.chosen = choices[0]
        self._branches.append(branch)
        self._depth += 1
        return branch.chosen

    def found_nothing(self, number: int) -> None:
        if self._locks_rows_only and self._depth and not self.is_redundant:
            branch = self._branches[self._depth - 1]
            if branch.chosen == number and branch.enabled[number].kind == "write":
                branch.taken = replace(branch.enabled[number], kind="read")

    def was_refused(self, number: int) -> None:
        if self.is_redundant or not self._depth:
            return
        branch = self._branches[self._depth - 1]
        branch.refused.add(number)
        del self._branches[self._depth :]
        self._depth -= 1
        choices = branch.open_choices()
        if choices:
            branch.chosen = choices[0]
        else:
            self.is_redundant = True
            self._branches.pop()

    def go_on(self) -> bool:
        """Turn to the next order; False if there is none."""
        while self._branches:
            branch = self._branches[-1]
            branch.done[branch.chosen] = branch.enabled[branch.chosen]
            if choices := branch.open_choices():
                branch.chosen, branch.taken = choices[0], None
                return True
            self._branches.pop()
        return False

    def _asleep(self, enabled: Mapping[int, Step]) -> dict[int, Step]:
        if not self._branches:
            return {}
        parent = self._branches[-1]
        taken = parent.taken or parent.enabled[parent.chosen]
        return {
            number: step
            for number, step in {**parent.asleep, **parent.done}.items()
            if number != parent.chosen and enabled.get(number) == step and self._commutes(step, taken)
        }


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
