"""Asking about tasks one by one, where a list cannot be used: side by side, and with care.

After a cut
connection no further question is asked: it may have been the last one that the creator lived through. The ids that were
being asked about at that moment are suspects; later they are asked about one at a time, so that the one that does the
damage is found and the others are not kept waiting because of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from ..errors import CreatorError, CreatorUnreachable
from .calls import ConnectionCut
from .protocol import Report

__all__ = ["ask_one_by_one"]

logger = logging.getLogger(__name__)

_PATIENCE = 1 / 6
"""How long one call may hold up the others, as a part of the timeout."""


def ask_one_by_one(
    ask: Callable[[str], Report],
    trusted: Sequence[str],
    suspects: Sequence[str],
    *,
    carefully: bool,
    concurrency: int,
    timeout: float,
) -> tuple[dict[str, Report], CreatorError | None]:
    """Ask about many tasks.

    Args:
        ask: asks about one.
        trusted: ids that never made trouble.
        suspects: ids that were being asked about when a connection was cut.
        carefully: ask the first question alone: the creator may be down.
        concurrency: calls at a time.
        timeout: seconds that one call may take; the ones that hang are left out sooner, once all others are done.

    Returns:
        What was found out, and what ended the asking, if anything did.
    """
    found: dict[str, Report] = {}
    if carefully and trusted:
        if stop := _ask_alone(ask, trusted[0], found):
            return found, stop
        trusted = trusted[1:]
    if trusted and (stop := _ask_together(ask, trusted, found, concurrency, timeout)):
        return found, stop
    for name in suspects:
        if stop := _ask_alone(ask, name, found):
            return found, stop
    return found, None


def _ask_alone(ask: Callable[[str], Report], name: str, found: dict[str, Report]) -> CreatorError | None:
    try:
        found[name] = ask(name)
    except CreatorError as error:
        return _stop_or_log(name, error)
    return None


def _ask_together(
    ask: Callable[[str], Report],
    names: Sequence[str],
    found: dict[str, Report],
    concurrency: int,
    timeout: float,
) -> CreatorError | None:
    left = iter(names)
    stop: CreatorError | None = None
    pool = ThreadPoolExecutor(concurrency, "contenthub-creator")
    try:
        running: dict[Future[Report], str] = {}
        while True:
            if stop is None:
                running |= {pool.submit(ask, name): name for name in islice(left, concurrency - len(running))}
            if not running:
                return stop
            done, _ = wait(running, timeout * _PATIENCE if found else None, FIRST_COMPLETED)
            if not done:
                logger.warning("The creator does not answer about %d tasks; the others go on.", len(running))
                return stop
            for future in done:
                name = running.pop(future)
                try:
                    found[name] = future.result()
                except CreatorError as error:
                    stop = _stop_or_log(name, error) or stop
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _stop_or_log(name: str, error: CreatorError) -> CreatorError | None:
    """The error, where it says that further questions are of no use or do harm."""
    if isinstance(error, ConnectionCut | CreatorUnreachable):
        return error
    logger.warning("A task could not be asked about: %s", error.message, extra={"creator_task_id": name})
    return None
