"""Values that must not survive a fork: locks, threads, connections and counts of work under way in the parent process.

A lock that another thread of the parent held would stay locked in the child, and work under way there would never end.
Nothing of the extension keeps such a value but in a :class:`PerProcess`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["PerProcess"]

T = TypeVar("T")

_living: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()
_is_hooked = False


class PerProcess(Generic[T]):
    """A value of one process; a forked child gets a new one before any of its threads can run.

    Args:
        make: creates the value: now in this process, and later in each forked child.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.value = make()
        _hook()
        _living.add(self)

    def renew(self) -> None:
        """Replace the value, as after a fork."""
        self.value = self._make()


def _hook() -> None:
    global _is_hooked  # noqa: PLW0603 - the hook belongs to the process, and cannot be taken back
    if not _is_hooked and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew_all)
        _is_hooked = True


def _renew_all() -> None:
    for owner in list(_living):  # a new value may hold others, which are new as well
        owner.renew()
