"""Creator for content-creator's HTTP API.

The current version crashes on calls that its documentation allows: a query for an unknown id, a request for a result
that does not exist yet, the cancellation of a finished job, its async mode, and, on PostgreSQL, its list. So calls are
avoided where possible, and a call whose connection was cut is not repeated soon. A version that behaves as documented
(202, 404, 400) works as well.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..core.logs import get_logger
from ..core.per_process import PerProcess
from ..errors import (
    ConfigurationError,
    CreatorAway,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
)
from .answers import failure, read_data, read_row, result_fields, row_id
from .calls import Calls
from .holds import Holds, LeftAlone
from .http_answers import AccessRefused, Answer, ConnectionCut, NoAnswer
from .listing import PAGE_SIZE, Walk, walk_list
from .protocol import Job, RemoteState, Report
from .singles import PartialReports, ask_one_by_one
from .submission import submission_body

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpCreator"]

logger = get_logger(__name__)

_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._~-]{1,255}")
_LIST_TRIES = 3
"""Consecutive walks that hang or fail before the list is left alone; one is enough if the connection was cut."""
_LIST, _SINGLES, _RESULTS = "list", "single", "result"
"""The names of the holds, beside the ids of jobs."""
_TROUBLES, _REFUSED, _GATEWAY = "list troubles", "list refused", "gateway"
"""Holds without length, which are counted: of the list, and of a gateway that was seen in front of the creator."""
_TEN_MINUTES, _ONE_MINUTE, _HALF_A_MINUTE = 600.0, 60.0, 30.0


class HttpCreator:
    """Client of content-creator's HTTP API. Safe for threads, which share one connection pool.

    ``status`` queries one task by its id, which is safe for every id that the creator accepted, on each of its
    databases. ``statuses`` reads the list, which is also safe for unknown ids. If the connection is cut while reading
    the list, it falls back to single queries, and avoids the list for ten minutes, then twenty, and so on, up to a day.
    An answer of a gateway instead of the list is none of the creator's, and nothing is asked in its place.

    Args:
        base_url: URL of the API, for example ``http://127.0.0.1:3001``. A ``user:password@`` in it is sent
            as a Basic header.
        api_key: sent as ``Authorization: Bearer``. content-creator itself needs none; a gateway in front of it may.
        timeout: seconds for connecting, sending and answering; :meth:`submit` waits for ``wait`` seconds instead.
        mode: ``sync``, in which a submission is answered when the work is done, or ``async``, in which it is answered
            at once, and which crashes the current version.
        max_pages: most pages of a hundred tasks that are read in one walk through the list; older tasks are queried
            one by one.
        listing: False never reads the list, which crashes content-creator on PostgreSQL.
        concurrency: concurrent single queries.
        client: an ``httpx.Client`` to use, for example with a proxy or a private CA; it is not closed here.
        monotonic: a monotonic clock, in seconds.
        clock: returns the current time, aware.

    Raises:
        ConfigurationError: an argument is invalid; the message contains no secret.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        mode: str = "sync",
        max_pages: int = 200,
        listing: bool = True,
        concurrency: int = 8,
        client: httpx.Client | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if mode not in {"sync", "async"}:
            raise ConfigurationError(f"The creator's mode is {mode!r}; it must be sync or async.")
        if timeout <= 0 or max_pages < 1 or concurrency < 1:
            raise ConfigurationError("timeout, max_pages and concurrency of a creator must be positive.")
        self._calls = Calls(base_url, api_key=api_key, timeout=timeout, client=client)
        self._mode, self._max_pages, self._listing, self._concurrency = mode, max_pages, listing, concurrency
        self._clock = clock
        self._results_work, self._one_result = False, PerProcess(threading.Lock)
        self.holds = Holds(monotonic)
        """What is left alone for a while; the extension replaces it by one that all processes share."""

    keeps_names = True
    """content-creator takes our name of a job as its idempotency key, and as its own id of the task."""

    def __repr__(self) -> str:
        return f"<HttpCreator {self.address}>"

    @property
    def address(self) -> str:
        """The URL of the API, without secrets."""
        return self._calls.address

    def close(self) -> None:
        """Close the connections, unless ``client`` was passed. The next call opens new ones."""
        self._calls.close()

    # --- submitting ------------------------------------------------------------------------------------------

    def submit(self, job: Job, *, wait: float) -> Report:
        """Submit a job; see :meth:`.Creator.submit`."""
        content = submission_body(job, self._mode)
        redactor = self._calls.redactor.also(job.callback_url, job.options)
        try:
            answer = self._calls.send("POST", "/api/tasks", content=content, wait=wait)
        except NoAnswer as late:
            may_be_accepted = late.status is None or 200 <= late.status < 300  # noqa: PLR2004
            if may_be_accepted and not (self._calls.behind_gateway or _GATEWAY in self.holds):
                return Report(state=RemoteState.OPEN)
            raise
        if answer.status == 409:  # noqa: PLR2004
            raise CreatorUnclear("The creator answers that it already has a job with this id (409).")
        self._calls.checked(answer, redactor)
        if answer.status == 202:  # noqa: PLR2004
            return Report(state=RemoteState.OPEN, raw=answer.body)
        data, _ = read_data(answer.body)
        report = read_row(data, answer.body)
        match report.state:
            case RemoteState.OPEN:
                return report
            case RemoteState.COMPLETED:
                return Report(state=report.state, result=result_fields(data), raw=report.raw)
            case RemoteState.FAILED:
                return Report(state=report.state, error=redactor.value(failure(data)), raw=report.raw)
            case _:
                raise CreatorUnclear("The creator answers a submission with a state that is not possible there.")

    def find(self, job: Job, *, since: datetime | None = None) -> Report:
        """Look up a job in the list alone; see :meth:`find_many`."""
        report = self.find_many([job.creator_task_id], since=since).get(job.creator_task_id)
        if report is None:
            raise CreatorUnclear("The creator's list does not tell whether it has the job.")
        return report

    def find_many(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """Look up jobs in the list alone, since a query for an id that the creator does not have crashes it.

        Returns:
            A report for each job of which the list tells whether the creator has it.

        Raises:
            CreatorUnclear: the list cannot be read now.
        """
        if not self._listing or self._held_for(_LIST):
            raise CreatorUnclear("Only the creator's list can tell whether it has the job, and it is not read now.")
        walk = self._walk(list(creator_task_ids), since)
        if walk.error is not None:
            self._note_list(walk.error, walk)
            if not walk.reports:
                raise walk.error
        return PartialReports(_with_missing(walk, creator_task_ids), walk.error)

    # --- querying --------------------------------------------------------------------------------------------

    def status(self, creator_task_id: str) -> Report:
        """Return the state of a job, in one request; see :meth:`.Creator.status`.

        An id whose query cut the connection before is looked up in the list instead.
        """
        if self._held_for(creator_task_id):
            report = self.statuses([creator_task_id]).get(creator_task_id)
            if report is None:
                raise self._left_alone(creator_task_id, self._held_for(creator_task_id))
            return report
        if remaining := self._held_for(_SINGLES):
            raise self._left_alone("single tasks", remaining)
        return self._ask(creator_task_id)

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """Return the states of many jobs; see :meth:`.Creator.statuses`.

        Makes one request for every hundred tasks that the creator received since 15 minutes before ``since``.
        Call it once with all ids rather than several times with some.
        """
        wanted = list(dict.fromkeys(creator_task_ids))
        if not wanted:
            return {}
        if not self._listing or self._held_for(_LIST):
            return self._ask_singly(wanted, {})
        walk = self._walk(wanted, since)
        rest = [name for name in wanted if name not in walk.reports and name not in walk.unclear]
        if walk.error is not None:
            return self._go_on_without_list(walk.error, walk, rest)
        if walk.gave_up:
            return self._ask_singly(rest, walk.reports)
        return _with_missing(walk, wanted)

    def result(self, creator_task_id: str) -> Report:
        """Return the result of a completed job; see :meth:`.Creator.result`.

        The ``url`` of an image is a path on the creator's disk, and is returned unchanged.
        """
        if self._results_work:
            return self._result(creator_task_id)
        with self._one_result.value:  # the first one shows whether they kill
            return self._result(creator_task_id)

    def _result(self, creator_task_id: str) -> Report:
        path = f"/api/tasks/{_quoted(creator_task_id)}/result"
        if remaining := self._held_for(_RESULTS):
            raise self._left_alone("a result", remaining)
        try:
            answer = self._calls.send("GET", path)
            if self._calls.is_not_found(answer):
                return Report(state=RemoteState.MISSING, raw=answer.body)
            data, _ = self._read(answer, creator_task_id)
        except CreatorAway as error:  # perhaps because it was asked: on PostgreSQL, any result crashes it
            self._results_work = False
            first = _TEN_MINUTES if isinstance(error, ConnectionCut) else _ONE_MINUTE
            self.holds.failed(_RESULTS, first=first)
            raise
        self._results_work = True
        self.holds.succeeded(_RESULTS)
        report = read_row(data, answer.body)
        if report.state is not RemoteState.COMPLETED:
            return report
        return Report(state=report.state, result=result_fields(data) or {}, raw=report.raw)

    def cancel(self, creator_task_id: str) -> None:
        """Request the cancellation of a job, if the creator has it and it is unfinished; others crash the creator.

        A job that finishes between query and request cannot be detected. content-creator does not stop a running job:
        it still reports its outcome.
        """
        report = self.statuses([creator_task_id]).get(creator_task_id)
        if report is None:
            raise CreatorUnclear("The creator does not tell now whether the job is unfinished.")
        if report.state is not RemoteState.OPEN:
            words = "The job was not cancelled at the creator: it is %s."
            logger.info(words, report.state.value, extra={"creator_task_id": creator_task_id})
            return
        answer = self._calls.send("DELETE", f"/api/tasks/{_quoted(creator_task_id)}")
        try:
            self._calls.checked(answer)
        except CreatorRefused as refusal:
            logger.info("%s", refusal.message, extra={"creator_task_id": creator_task_id})

    # --- helpers ---------------------------------------------------------------------------------------------

    def _ask(self, creator_task_id: str) -> Report:
        """Query one task; remember the id if the connection is cut."""
        path = f"/api/tasks/{_quoted(creator_task_id)}"
        try:
            answer = self._calls.send("GET", path)
        except ConnectionCut:
            self.holds.failed(creator_task_id, first=_TEN_MINUTES)
            self._hold_singles()
            raise
        try:
            is_missing = self._calls.is_not_found(answer)
            row = {} if is_missing else self._read(answer, creator_task_id)[0]
        except (CreatorAway, CreatorUnreachable):
            self._hold_singles()
            raise
        self.holds.succeeded(creator_task_id)
        self.holds.succeeded(_SINGLES)
        return Report(state=RemoteState.MISSING, raw=answer.body) if is_missing else read_row(row, answer.body)

    def _read(self, answer: Answer, creator_task_id: str) -> tuple[dict[str, Any], datetime | None]:
        data, now = read_data(self._calls.checked(answer).body)
        if row_id(data) not in {None, creator_task_id}:
            raise CreatorUnclear("The creator's answer is about a different job than the query.")
        return data, now

    def _read_page(self, number: int) -> tuple[dict[str, Any], datetime | None]:
        answer = self._calls.send("GET", f"/api/tasks?page={number}&limit={PAGE_SIZE}")
        return read_data(self._calls.checked(answer).body)

    def _walk(self, wanted: list[str], since: datetime | None) -> Walk:
        """Look for jobs in the list, once it is clear that the creator itself can be reached."""
        is_doubted = self.holds.failures(_REFUSED) >= _LIST_TRIES - 1
        if is_doubted:
            self._look_at_health()
        walk = walk_list(self._read_page, wanted, max_pages=self._max_pages, now=self._clock(), since=since)
        walk.was_reached = is_doubted
        if self._calls.behind_gateway and _GATEWAY not in self.holds:
            self.holds.failed(_GATEWAY, first=0.0)
        if walk.error is None:
            for name in (_TROUBLES, _REFUSED, _LIST):
                self.holds.succeeded(name)
        return walk

    def _look_at_health(self) -> None:
        """Make sure that the creator itself answers; every version of it stands this call."""
        try:
            self._calls.checked(self._calls.send("GET", "/health"))
        except NoAnswer as error:
            raise CreatorUnreachable(error.message) from None
        except CreatorRefused as refusal:
            logger.debug("The creator refuses to tell its health: %s", refusal.message)

    def _note_list(self, error: CreatorError, walk: Walk) -> bool:
        """Remember that the list could not be read; return True if single queries may take its place."""
        if isinstance(error, CreatorUnreachable | AccessRefused):  # single queries would fail as well
            return False
        if isinstance(error, ConnectionCut):
            logger.warning("The creator's list is avoided for a while: %s", error.message)
            self.holds.failed(_LIST, first=_TEN_MINUTES)
            return True
        logger.warning("The creator's list could not be read: %s", error.message)
        name = _REFUSED if isinstance(error, CreatorAway) else _TROUBLES
        self.holds.failed(name, first=0.0)
        kills = name == _REFUSED and walk.was_reached  # the creator was there a moment before
        if kills or (name == _TROUBLES and self.holds.failures(name) >= _LIST_TRIES):
            self.holds.failed(_LIST, first=_TEN_MINUTES)
        return kills or not isinstance(error, CreatorAway | NoAnswer)

    def _go_on_without_list(self, error: CreatorError, walk: Walk, rest: list[str]) -> Mapping[str, Report]:
        """Keep what a broken-off walk found, and query the rest one by one unless that would fail as well."""
        reports = walk.reports
        if self._note_list(error, walk):
            return self._ask_singly(rest, reports, carefully=True)
        if not reports:
            raise CreatorUnreachable(error.message) if isinstance(error, NoAnswer) else error
        logger.warning("The creator's list was not read completely: %s", error.message)
        self._hold_singles()
        return PartialReports(reports, error)

    def _ask_singly(
        self, names: list[str], reports: dict[str, Report], *, carefully: bool = False
    ) -> Mapping[str, Report]:
        remaining = self._held_for(_SINGLES)
        if remaining and not reports:
            raise self._left_alone("single tasks", remaining)
        if remaining:
            return reports
        askable = [name for name in names if _ID.fullmatch(name) and not self._held_for(name)]
        more, stop = ask_one_by_one(
            self._ask,
            [name for name in askable if name not in self.holds],
            [name for name in askable if name in self.holds],
            carefully=carefully,
            concurrency=self._concurrency,
            timeout=self._calls.timeout,
        )
        if stop is not None and not more and not reports:
            raise stop
        return PartialReports(reports | more, stop)

    def _hold_singles(self) -> None:
        self.holds.failed(_SINGLES, first=_HALF_A_MINUTE, longest=_TEN_MINUTES)

    def _held_for(self, name: str) -> float:
        return self.holds.remaining(name)

    def _left_alone(self, what: str, remaining: float) -> LeftAlone:
        return LeftAlone(
            f"The creator at {self._calls.address} did not answer when queried for {what}; it is not queried again "
            f"for {remaining:.0f} s."
        )


def _with_missing(walk: Walk, wanted: Collection[str]) -> dict[str, Report]:
    """Return the reports of a walk; what a certain one did not see is missing."""
    lacking = [name for name in wanted if name not in walk.reports and name not in walk.unclear]
    missing = Report(state=RemoteState.MISSING)
    return walk.reports | dict.fromkeys(lacking, missing) if walk.is_certain else walk.reports


def _quoted(creator_task_id: str) -> str:
    if not _ID.fullmatch(creator_task_id):
        raise CreatorRefused("This is not the id of a job at the creator.", reason="INVALID_ID")
    return quote(creator_task_id, safe="")
