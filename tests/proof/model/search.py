"""The search: every state that can be reached, breadth first, so that the first story of a fault is the shortest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from .machine import Hub, Setting
from .promises import broken

__all__ = ["Found", "search"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Args:
        name: of its setting.
        states: that were reached.
        transitions: steps between them.
        depth: steps of the longest of the shortest ways.
        steps: how often the shipped code was run for one step.
        is_whole: False if it was stopped before everything was reached.
        stories: of the faults.
        seconds: it took.
    """

    name: str
    states: int
    transitions: int
    depth: int
    steps: int
    is_whole: bool
    stories: tuple[str, ...]
    seconds: float


def search(
    setting: Setting,
    *,
    most: int | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Found:
    """Go through all states of a setting; end at the first fault.

    Args:
        setting: what may happen.
        most: transitions after which it is stopped.
        seconds: of processor time, after which it is stopped, however busy the machine is.
        say: is told how far it is, now and then.
    """
    began, used = time.monotonic(), time.process_time()
    with closing(Hub(setting)) as hub:
        first = hub.first()
        ways: dict[int, tuple[int, str] | None] = {first.key: None}
        todo, transitions, depth = deque([(first, 0)]), 0, 0
        stories: tuple[str, ...] = ()
        said_at = began
        while todo and not stories:
            state, depth = todo.popleft()
            key = state.key
            for said, after in hub.successors(state):
                transitions += 1
                if faults := list(broken(hub, state, after)):
                    stories = (_story(setting, [*_way_to(ways, key), said], faults),)
                    break
                after_key = after.key
                if after_key not in ways:
                    ways[after_key] = key, said
                    todo.append((after, depth + 1))
            now = time.monotonic()
            if now - said_at > 30:
                said_at = now
                say(f"{setting.name}: {len(ways):,} states, {len(todo):,} to look at, depth {depth}")
            if (most is not None and transitions >= most) or (
                seconds is not None and time.process_time() - used > seconds
            ):
                break
    return Found(setting.name, len(ways), transitions, depth, hub.steps, not todo, stories, time.monotonic() - began)


def _way_to(ways: dict[int, tuple[int, str] | None], key: int) -> list[str]:
    said = []
    while (way := ways[key]) is not None:
        key, words = way
        said.append(words)
    return said[::-1]


def _story(setting: Setting, steps: list[str], faults: list[str]) -> str:
    lines = [f"A counterexample ({setting.name}):", "  1. the host submits a task"]
    lines += [f"  {number}. {step}" for number, step in enumerate(steps, 2)]
    lines += [f"  => {fault}" for fault in faults]
    return "\n".join(lines)
