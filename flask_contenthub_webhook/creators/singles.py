"""Query tasks one by one, concurrently, if the list cannot be used.

After a cut connection no further query is sent, since it may have crashed the creator. The ids of the queries under
way at that moment are suspects; later they are queried one at a time, so that the one that causes the crash is found
and does not delay the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice

from ..core.logs import get_logger
from ..core.stopping import DaemonThreads, is_stopping
from ..errors import CreatorAway, CreatorError, CreatorUnreachable
from .protocol import Report

__all__ = ["PartialReports", "ask_one_by_one"]

logger = get_logger(__name__)

_PATIENCE = 1 / 6
"""Share of the timeout for which a query may delay the others."""


class PartialReports(dict[str, Report]):
    """Reports on some of the jobs that were asked about.

    Args:
        reports: by the names of the jobs.
        stopped_by: the error that ended the asking; None if it went to its end.
    """

    def __init__(self, reports: Mapping[str, Report], stopped_by: CreatorError | None) -> None:
        super().__init__(reports)
        self.stopped_by = stopped_by


def ask_one_by_one(
    ask: Callable[[str], Report],
    trusted: Sequence[str],
    suspects: Sequence[str],
    *,
    carefully: bool,
    concurrency: int,
    timeout: float,
) -> tuple[dict[str, Report], CreatorError | None]:
    """Query many tasks; return the reports, and the error that stopped further queries, if any.

    ``suspects`` were being queried when a connection was cut; ``carefully`` sends the first query alone, since the
    creator may be down. Queries that hang are given up before the ``timeout`` once all others are done.
    """
    reports: dict[str, Report] = {}
    if carefully and trusted:
        if stop := _ask_alone(ask, trusted[0], reports):
            return reports, stop
        trusted = trusted[1:]
    if trusted and (stop := _ask_together(ask, trusted, reports, concurrency, timeout)):
        return reports, stop
    for name in suspects:
        if stop := _ask_alone(ask, name, reports):
            return reports, stop
    return reports, None


def _ask_alone(ask: Callable[[str], Report], name: str, reports: dict[str, Report]) -> CreatorError | None:
    try:
        reports[name] = ask(name)
    except CreatorError as error:
        return _stop_or_log(name, error)
    return None


def _ask_together(
    ask: Callable[[str], Report],
    names: Sequence[str],
    reports: dict[str, Report],
    concurrency: int,
    timeout: float,
) -> CreatorError | None:
    left = iter(names)
    stop: CreatorError | None = None
    pool = DaemonThreads(concurrency, "contenthub-creator")
    try:
        running: dict[Future[Report], str] = {}
        while True:
            if stop is None and not is_stopping():
                running |= {pool.submit(ask, name): name for name in islice(left, concurrency - len(running))}
            if not running:
                return stop
            done, _ = wait(running, timeout * _PATIENCE if reports else None, FIRST_COMPLETED)
            if not done:
                logger.warning("The creator does not answer queries for %d tasks; they are omitted.", len(running))
                return stop
            for future in done:
                name = running.pop(future)
                try:
                    reports[name] = future.result()
                except CreatorError as error:
                    stop = _stop_or_log(name, error) or stop
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _stop_or_log(name: str, error: CreatorError) -> CreatorError | None:
    """Return the error if further queries would be useless or harmful; log it otherwise."""
    if isinstance(error, CreatorAway | CreatorUnreachable):
        return error
    logger.warning("A task could not be queried: %s", error.message, extra={"creator_task_id": name})
    return None
