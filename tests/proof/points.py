"""The points at which a process may end: before and after each statement, COMMIT and call, counted as they are seen."""

from __future__ import annotations

import os
import pickle
import re
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa

from tests.support.host import Host

from .service import LedgerCreator

__all__ = ["DIED", "Points", "in_a_child"]

_RANDOM = re.compile(r"[0-9a-f]{32}")
_PREPARES = re.compile(r"(before|after) (SELECT @@|SET )")
"""A session's settings change no row, and how many connections the threads of a pool open depends on their turns."""
DIED = 9
"""Exit status of a process that ended at its point."""


class Points:
    """Sees the points of an application, or ends its process at one of them.

    Args:
        die_at: the point; None for none.
        first_only: threads that look again and again, where a step counts the first time; so do a session's settings
            in all threads.
    """

    def __init__(self, die_at: str | None = None, *, first_only: Collection[str] = ()) -> None:
        self._die_at = die_at
        self._first_only = frozenset(first_only)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.seen: list[str] = []

    def at(self, what: str) -> None:
        """Pass a point, or end there."""
        thread = threading.current_thread().name.rstrip("0123456789").rstrip("-")  # of a pool, any may be the one
        with self._lock:
            step = f"{thread}: {_RANDOM.sub('*', ' '.join(what.split()))[:160]}"
            self._counts[step] += 1
            count = self._counts[step]
            if count > 1 and (thread in self._first_only or _PREPARES.match(what)):
                return
            point = step if count == 1 else f"{step} ({count})"
            if point == self._die_at:
                os._exit(DIED)
            self.seen.append(point)

    def watch(self, host: Host) -> None:
        """See the statements, the commits, the calls to the creator and the forwards of an application."""
        engine, state = host.engine, host.state
        sa.event.listen(engine, "before_cursor_execute", lambda *args: self.at(f"before {args[2]}"))
        sa.event.listen(engine, "after_cursor_execute", lambda *args: self.at(f"after {args[2]}"))
        do_commit, post = engine.dialect.do_commit, state.post

        def commit(connection: Any) -> None:
            self.at("before COMMIT")
            do_commit(connection)
            self.at("after COMMIT")

        def post_between(url: str, body: bytes, headers: Any) -> Any:
            self.at("before the POST to a receiver")
            answer = post(url, body, headers)
            self.at("after the POST to a receiver")
            return answer

        vars(engine.dialect)["do_commit"] = commit
        state.post = post_between
        if isinstance(state.creator, LedgerCreator):
            state.creator.at = self.at


def in_a_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Do some work in a fork of this process; return its exit status, and what the work returned."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of a fork beside threads; these hold nothing of the child's
        pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            said = pickle.dumps(work())
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(said)
        except BaseException:  # noqa: BLE001 - whatever it is, this is a process of its own
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, pickle.loads(said) if said else None
