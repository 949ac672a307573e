"""Calls of a creator from a request, which is not kept waiting for as long as the creator may take."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from typing import TypeVar

from ..core.stopping import DaemonThreads
from ..errors import CreatorUnclear

__all__ = ["PATIENCE", "in_time"]

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that a request waits for a creator; the sender, and a server that is to stop, wait for the request."""


def in_time(call: Callable[[], T], seconds: float | None, *, late: str) -> T:
    """Return what a call returns, if that is soon enough; else the call goes on in its thread, for nothing.

    Args:
        call: calls the creator.
        seconds: to wait; None waits for as long as the call takes.
        late: the message of the error.

    Raises:
        CreatorUnclear: it took too long.
    """
    if seconds is None:
        return call()
    running = DaemonThreads(1, "contenthub-asking").submit(call)
    if not wait([running], timeout=seconds).done:
        raise CreatorUnclear(late)
    return running.result()
