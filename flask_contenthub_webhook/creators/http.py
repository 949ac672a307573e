"""Creator for content-creator's HTTP API.

The current version crashes on calls that its documentation allows: a query for an unknown id, a request for a result
that does not exist yet, the cancellation of a finished job, its async mode, and, on PostgreSQL, its list. So calls are
avoided where possible, and a call whose connection was cut is not repeated soon. A version that behaves as documented
(202, 404, 400) works as well.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from ..core.cooldown import Cooldown, Cooldowns
from ..core.logs import get_logger
from ..errors import (
    ConfigurationError,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
)
from .answers import failure, read_data, read_row, result_fields, row_id
from .calls import AccessRefused, Answer, Calls, ConnectionCut, NoAnswer
from .listing import PAGE_SIZE, walk_list
from .protocol import Job, RemoteState, Report
from .singles import ask_one_by_one

__all__ = ["HttpCreator"]

logger = get_logger(__name__)

_LARGEST_REQUEST = 10 * 1024 * 1024
_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._~-]{1,255}")
_LIST_TRIES = 3
"""Consecutive walks that hang or fail before the list is left alone; one is enough if the connection was cut."""
_LIST = "the list"


class HttpCreator:
    """Client of content-creator's HTTP API. Safe for threads, which share one connection pool.

    ``status`` queries one task by its id, which is safe for every id that the creator accepted, on each of its
    databases. ``statuses`` reads the list, which is also safe for unknown ids. If the connection is cut while reading
    the list, it falls back to single queries, and avoids the list for ten minutes, then twenty, and so on, up to a day.

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
        self._list_troubles = 0
        self._monotonic = monotonic
        self._held = Cooldowns[timedelta](lambda: Cooldown(timedelta(minutes=10), timedelta(days=1), jitter=False))
        self._singles = Cooldown[timedelta](timedelta(seconds=30), timedelta(minutes=10), jitter=False)

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
        """Submit a job; see :meth:`.protocol.Creator.submit`."""
        content = _request_body(job, self._mode)
        redactor = self._calls.redactor.also(job.callback_url, job.options)
        try:
            answer = self._calls.send("POST", "/api/tasks", content=content, wait=wait)
        except NoAnswer as late:
            if late.status is None or 200 <= late.status < 300:  # noqa: PLR2004
                return Report(state=RemoteState.OPEN)
            raise
        if answer.status == 409:  # noqa: PLR2004
            raise CreatorUnclear("The creator answers that it already has a job with this id (409).")
        if answer.status == 202:  # noqa: PLR2004
            return Report(state=RemoteState.OPEN, raw=answer.body)
        data, _ = read_data(self._calls.checked(answer, redactor).body)
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
        """Look up a job in the list alone: a query for an id that the creator does not have crashes it.

        Raises:
            CreatorUnclear: the list cannot be read now, or was not read to its end.
        """
        name = job.creator_task_id
        if not self._listing or self._held_for(_LIST):
            raise CreatorUnclear("Only the creator's list can tell whether it has the job, and it is not read now.")
        walk = walk_list(self._read_page, [name], max_pages=self._max_pages, now=self._clock(), since=since)
        if name in walk.reports:
            return walk.reports[name]
        if isinstance(walk.error, ConnectionCut):
            self._held.failed(_LIST, self._now())
        if walk.error is not None:
            raise walk.error
        if not walk.is_certain:
            raise CreatorUnclear("The creator's list does not tell whether it has the job.")
        return Report(state=RemoteState.MISSING)

    # --- querying --------------------------------------------------------------------------------------------

    def status(self, creator_task_id: str) -> Report:
        """Return the state of a job, in one request; see :meth:`.protocol.Creator.status`.

        An id whose query cut the connection before is looked up in the list instead.
        """
        if self._held_for(creator_task_id):
            report = self.statuses([creator_task_id]).get(creator_task_id)
            if report is None:
                raise self._left_alone(creator_task_id, self._held_for(creator_task_id))
            return report
        if remaining := self._singles.remaining(self._now()):
            raise self._left_alone("single tasks", remaining)
        return self._ask(creator_task_id)

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """Return the states of many jobs; see :meth:`.protocol.Creator.statuses`.

        Makes one request for every hundred tasks that the creator received since 15 minutes before ``since``.
        Call it once with all ids rather than several times with some.
        """
        wanted = list(dict.fromkeys(creator_task_ids))
        if not wanted:
            return {}
        if not self._listing or self._held_for(_LIST):
            return self._ask_singly(wanted, {})
        walk = walk_list(self._read_page, wanted, max_pages=self._max_pages, now=self._clock(), since=since)
        reports = walk.reports
        rest = [name for name in wanted if name not in reports and name not in walk.unclear]
        if walk.error is not None:
            return self._go_on_without_list(walk.error, rest, reports)
        self._list_troubles = 0
        self._held.succeeded(_LIST)
        if walk.is_certain:
            return reports | {name: Report(state=RemoteState.MISSING) for name in rest}
        if walk.gave_up:
            return self._ask_singly(rest, reports)
        return reports

    def result(self, creator_task_id: str) -> Report:
        """Return the result of a completed job; see :meth:`.protocol.Creator.result`.

        The ``url`` of an image is a path on the creator's disk, and is returned unchanged.
        """
        path = f"/api/tasks/{_quoted(creator_task_id)}/result"
        if remaining := self._held_for(path):
            raise self._left_alone(f"the result of {creator_task_id}", remaining)
        try:
            answer = self._calls.send("GET", path)
        except ConnectionCut:
            self._held.failed(path, self._now())
            raise
        self._held.succeeded(path)
        if self._calls.is_not_found(answer):
            return Report(state=RemoteState.MISSING, raw=answer.body)
        data, _ = self._read(answer, creator_task_id)
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
        if report is None or report.state is not RemoteState.OPEN:
            logger.info(
                "The job was not cancelled at the creator: it is %s.",
                "in an unknown state" if report is None else report.state.value,
                extra={"creator_task_id": creator_task_id},
            )
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
            self._held.failed(creator_task_id, self._now())
            self._singles.failed(self._now())
            raise
        self._held.succeeded(creator_task_id)
        self._singles.succeeded()
        if self._calls.is_not_found(answer):
            return Report(state=RemoteState.MISSING, raw=answer.body)
        data, _ = self._read(answer, creator_task_id)
        return read_row(data, answer.body)

    def _read(self, answer: Answer, creator_task_id: str) -> tuple[dict[str, Any], datetime | None]:
        data, now = read_data(self._calls.checked(answer).body)
        if row_id(data) not in {None, creator_task_id}:
            raise CreatorUnclear("The creator's answer is about a different job than the query.")
        return data, now

    def _read_page(self, number: int) -> tuple[dict[str, Any], datetime | None]:
        answer = self._calls.send("GET", f"/api/tasks?page={number}&limit={PAGE_SIZE}")
        return read_data(self._calls.checked(answer).body)

    def _go_on_without_list(
        self, error: CreatorError, rest: list[str], reports: dict[str, Report]
    ) -> Mapping[str, Report]:
        """Keep what a broken-off walk found, and query the rest one by one unless that would fail as well."""
        stop: CreatorError | None = None
        if isinstance(error, CreatorUnreachable | AccessRefused):  # single queries would fail as well
            stop = error
        elif isinstance(error, NoAnswer):
            self._note_list_trouble()
            stop = CreatorUnreachable(error.message)
        elif isinstance(error, ConnectionCut):
            logger.warning("The creator's list is avoided for a while: %s", error.message)
            self._held.failed(_LIST, self._now())
        else:
            logger.warning("The creator's list could not be read: %s", error.message)
            self._note_list_trouble()
        if stop is None:
            return self._ask_singly(rest, reports, carefully=True)
        if not reports:
            raise stop
        logger.warning("The creator's list was not read completely: %s", stop.message)
        self._singles.failed(self._now())
        return reports

    def _note_list_trouble(self) -> None:
        self._list_troubles += 1
        if self._list_troubles >= _LIST_TRIES:
            self._held.failed(_LIST, self._now())

    def _ask_singly(
        self, names: list[str], reports: dict[str, Report], *, carefully: bool = False
    ) -> Mapping[str, Report]:
        remaining = self._singles.remaining(self._now())
        if remaining and not reports:
            raise self._left_alone("single tasks", remaining)
        if remaining:
            return reports
        askable = [name for name in names if _ID.fullmatch(name) and not self._held_for(name)]
        more, stop = ask_one_by_one(
            self._ask,
            [name for name in askable if name not in self._held],
            [name for name in askable if name in self._held],
            carefully=carefully,
            concurrency=self._concurrency,
            timeout=self._calls.timeout,
        )
        if stop is not None and not more and not reports:
            raise stop
        return reports | more

    def _now(self) -> timedelta:
        return timedelta(seconds=self._monotonic())

    def _held_for(self, name: str) -> timedelta:
        return self._held.remaining(name, self._now())

    def _left_alone(self, what: str, remaining: timedelta) -> CreatorUnreachable:
        return CreatorUnreachable(
            f"The creator at {self._calls.address} cut the connection when queried for {what}; it is not queried again "
            f"for {remaining.total_seconds():.0f} s."
        )


def _quoted(creator_task_id: str) -> str:
    if not _ID.fullmatch(creator_task_id):
        raise CreatorRefused("This is not the id of a job at the creator.", reason="INVALID_ID")
    return quote(creator_task_id, safe="")


def _request_body(job: Job, mode: str) -> bytes:
    """Build the submission, without ``type``, for which the creator accepts no value."""
    fields: dict[str, Any] = {
        "topic": job.topic,
        "requirements": job.requirements,
        "targetAudience": job.target_audience,
        "keywords": list(job.keywords) or None,
        "tone": job.tone,
        "priority": job.priority,
        "mode": mode,
        "idempotencyKey": job.creator_task_id,
    }
    options = {name: value for name, value in job.options.items() if name not in _OURS}
    if job.callback_url is not None:
        fields |= {
            "callbackUrl": job.callback_url,
            "callbackEnabled": True,
            "callbackEvents": list(job.callback_events) or None,
        }
    given = {name: value for part in (options, fields) for name, value in part.items() if value is not None}
    try:
        content = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CreatorRefused(f"The job cannot be written as JSON: {error}.", reason="INVALID_JOB") from None
    if len(content) > _LARGEST_REQUEST:
        raise CreatorRefused(
            f"The job is {len(content)} bytes long; the creator accepts {_LARGEST_REQUEST}.", reason="JOB_TOO_LARGE"
        )
    return content


_OURS = frozenset({"callbackUrl", "callbackEnabled", "callbackEvents", "idempotencyKey", "mode"})
