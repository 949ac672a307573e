"""The way in which the extension calls a creator: in an application context, believing nothing unchecked."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.logs import get_logger
from ..core.redaction import clean, storable
from ..errors import (
    CreatorAway,
    CreatorBug,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
    EventUnreadable,
    SignatureExpired,
    SignatureInvalid,
    SignatureMissing,
    ends_process,
)
from ..storage.host_session import context_of_ours
from .holds import Holds, LeftAlone
from .named import ALONE
from .pause import Pause
from .protocol import Callback, Creator, Job, RemoteState, Report

if TYPE_CHECKING:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["GuardedCreator", "job_name_trouble"]

logger = get_logger(__name__)

T = TypeVar("T")

_MAX_NAME = 255
_MAX_CODE = 64
_MAX_WORDS = 10_000


class GuardedCreator:
    """Forwards every call, each in a new application context, so that a creator may use ``current_app`` anywhere.

    Exceptions other than CreatorError are the creator's bugs: they are logged with their traceback and raised as
    :class:`~.errors.CreatorBug`, and so is an answer that is not a report. The words of an error can be stored.

    While the creator's pause is on, nothing is sent; what comes of each call begins or ends it, for all processes.

    Args:
        creator: the host's, or the configured one.
        app: the application.
        db: the host's Flask-SQLAlchemy object.
        pause: leaves the creator alone while it is away.
        name: its name in ``Creators``, or the name of an only one.
    """

    def __init__(self, creator: Creator, app: Flask, db: SQLAlchemy, pause: Pause, *, name: str = ALONE) -> None:
        self.name = name
        self.pause = pause
        self._creator = creator
        if isinstance(getattr(creator, "holds", None), Holds):
            creator.holds = pause.holds  # type: ignore[attr-defined]
        self._app = app
        self._db = db

    @property
    def address(self) -> str | None:
        """The address of the service, without secrets, if the creator has one."""
        address = getattr(self._creator, "address", None)
        return storable(address[:_MAX_NAME]) if isinstance(address, str) else None

    @property
    def is_idempotent(self) -> bool:
        """True if a second ``submit`` of the same job starts no second one."""
        return getattr(self._creator, "idempotent", False) is True

    @property
    def keeps_names(self) -> bool:
        """True if the service knows each job by our name, even if the answer to its submission got lost."""
        return getattr(self._creator, "keeps_names", False) is True

    @property
    def verifies_callbacks(self) -> bool:
        """True if the creator tells callbacks of its service from others by itself."""
        return callable(getattr(self._creator, "verify_callback", None))

    @property
    def can_find(self) -> bool:
        """True if the creator can look up a job whose submission was not answered."""
        return self.keeps_names or self.finds

    @property
    def finds(self) -> bool:
        """True if the creator looks up such a job in a way of its own, which is never a query for its name alone."""
        return callable(getattr(self._creator, "find", None))

    @property
    def can_find_many(self) -> bool:
        """True if the creator looks up many such jobs in few requests."""
        return callable(getattr(self._creator, "find_many", None))

    def submit(self, job: Job, *, wait: float) -> Report:
        """See :meth:`.protocol.Creator.submit`."""
        return self._report("submit", lambda: self._creator.submit(job, wait=wait))

    def find(self, job: Job, *, since: datetime | None = None) -> Report | None:
        """Look up a job that was not submitted before ``since``; None if the creator cannot tell now."""
        find: Callable[..., Report] | None = getattr(self._creator, "find", None)
        if callable(find):
            return self._report("find", lambda: find(job, since=since))
        return self.statuses([job.creator_task_id], since=since).get(job.creator_task_id)

    def status(self, creator_task_id: str) -> Report:
        """See :meth:`.protocol.Creator.status`."""
        return self._report("status", lambda: self._creator.status(creator_task_id))

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """See :meth:`.protocol.Creator.statuses`; an answer that is not a report is logged and left out."""
        return self._reports("statuses", lambda: self._creator.statuses(creator_task_ids, since=since))

    def find_many(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """Look up many jobs whose names the service has not confirmed; what cannot be told is left out."""
        find_many: Callable[..., Any] = self._creator.find_many  # type: ignore[attr-defined]
        return self._reports("find_many", lambda: find_many(creator_task_ids, since=since))

    def _reports(self, method: str, call: Callable[[], Any]) -> Mapping[str, Report]:
        said = self._call(method, call)
        if not isinstance(said, Mapping):
            raise self._bug(method, f"returned a {type(said).__name__} instead of a mapping of reports")
        stopped_by = getattr(said, "stopped_by", None)
        if isinstance(stopped_by, CreatorUnreachable | CreatorAway) and not isinstance(stopped_by, LeftAlone):
            self.pause.failed(stopped_by)
        reports: dict[str, Report] = {}
        for name, report in said.items():
            try:
                reports[name] = self._checked(method, report)
            except CreatorError as error:
                logger.warning("%s", error.message, extra={"creator_task_id": name})
        return reports

    def result(self, creator_task_id: str) -> Report:
        """See :meth:`.protocol.Creator.result`."""
        return self._report("result", lambda: self._creator.result(creator_task_id))

    def cancel(self, creator_task_id: str) -> None:
        """See :meth:`.protocol.Creator.cancel`."""
        self._call("cancel", lambda: self._creator.cancel(creator_task_id))

    def verify_callback(self, callback: Callback) -> str | None:
        """Return the service's id of a callback that it sent, if it has one.

        Raises:
            EventUnreadable: the creator cannot tell now, such as without the keys of its service.
            SignatureInvalid: the creator raised, or returned anything that is not an id; a bug lets nothing in, and
                the words of its error, which may hold the right signature, are for nobody.
        """
        verify: Callable[[Callback], Any] = getattr(self._creator, "verify_callback")  # noqa: B009 - it is optional
        try:
            with context_of_ours(self._app, self._db):
                said = verify(callback)
        except (SignatureExpired, SignatureInvalid, SignatureMissing):
            raise
        except CreatorError as error:
            logger.warning("A callback could not be verified: %s", _with_storable_words(error).message)
            raise EventUnreadable from error
        except BaseException as error:
            if ends_process(error):
                raise
            logger.debug("A callback was not verified.", exc_info=True)
            raise SignatureInvalid(f"{self.name}: the callback was not verified ({type(error).__name__}).") from error
        if said is None or isinstance(said, str):
            return _message_id(said)
        logger.error("%s", self._bug("verify_callback", f"returned a {type(said).__name__}").message)
        raise SignatureInvalid(f"{self.name}: the callback was not verified.")

    def read_callback(self, callback: Callback) -> Report | None:
        """Return what a callback says; None if it is about no job of ours. This needs no call as often as not.

        So a pause does not hold it up, and that it went well does not end one.
        """
        read: Callable[[Callback], Any] = getattr(self._creator, "read_callback")  # noqa: B009 - it is optional
        try:
            said = self._call_checked("read_callback", lambda: read(callback))
        except CreatorError as error:
            self._heed("read_callback", error)
            raise
        report = None if said is None else self._checked("read_callback", said)
        if report is None or report.state is RemoteState.MISSING:
            return None
        if trouble := job_name_trouble(report.creator_task_id) or job_name_trouble(report.task_id):
            raise self._bug("read_callback", f"returned a name that {trouble}")
        return report

    def _report(self, method: str, call: Callable[[], Report]) -> Report:
        return self._checked(method, self._call(method, call))

    def _call(self, method: str, call: Callable[[], T]) -> T:
        with self.pause.call():
            try:
                said = self._call_checked(method, call)
            except CreatorError as error:
                self._heed(method, error)
                raise
            self.pause.succeeded()
            return said

    def _heed(self, method: str, error: CreatorError) -> None:
        """Begin or end the pause as an error says whether the creator is there."""
        if isinstance(error, LeftAlone):
            return
        is_refused = isinstance(error, CreatorRefused)
        if isinstance(error, CreatorUnreachable | CreatorAway) or (is_refused and method == "statuses"):
            self.pause.failed(error)
        elif is_refused:
            self.pause.succeeded()

    def _call_checked(self, method: str, call: Callable[[], T]) -> T:
        try:
            with context_of_ours(self._app, self._db):
                return call()
        except CreatorError as error:
            raise _with_storable_words(error) from error.__cause__
        except (Exception, SystemExit) as error:
            if ends_process(error):
                raise
            logger.exception("The creator %s has a bug in %s.", type(self._creator).__name__, method)
            raise self._bug(method, f"raised {type(error).__name__}: {_words_of(error)}") from error

    def _checked(self, method: str, report: Any) -> Report:
        """Return a report whose state is one of ours and whose raw answer is bytes."""
        if not isinstance(report, Report):
            raise self._bug(method, f"returned a {type(report).__name__} instead of a report")
        state: Any = report.state
        raw: Any = report.raw
        if isinstance(state, RemoteState) and isinstance(raw, bytes):
            return report
        try:
            state = RemoteState(state)
        except ValueError:
            raise CreatorUnclear(f"The creator reports an unknown state: {clean(repr(state))}.") from None
        return dataclasses.replace(
            report, state=state, raw=raw if isinstance(raw, bytes) else str(raw).encode(errors="replace")
        )

    def _bug(self, method: str, words: str) -> CreatorBug:
        return CreatorBug(f"{type(self._creator).__name__}.{method} {words}.")


def job_name_trouble(name: object) -> str | None:
    """Return the reason for which a service's own name for a job cannot be kept; None for a valid one, or none."""
    if name is None:
        return None
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not text"
    if not name:
        return "is empty"
    if len(name) > _MAX_NAME:
        return f"has {len(name)} characters; at most {_MAX_NAME} can be kept"
    return None if storable(name) == name else "contains NUL or half of a surrogate pair, which no database keeps"


def _message_id(said: str | None) -> str | None:
    """Return the id as it can be kept; one that is too long, or has other characters, as its digest."""
    if not said:
        return None
    is_plain = len(said) <= _MAX_NAME and said.isascii() and said.isprintable()
    return said if is_plain else f"sha256:{hashlib.sha256(said.encode(errors='surrogatepass')).hexdigest()}"


def _with_storable_words(error: CreatorError) -> CreatorError:
    error.message = storable(str(error.message))[:_MAX_WORDS]
    if isinstance(error, CreatorRefused):
        error.reason = None if error.reason is None else storable(str(error.reason))[:_MAX_CODE]
        details: Any = error.details
        error.details = details if isinstance(details, Mapping) else {"details": details}
    return error


def _words_of(error: BaseException) -> str:
    try:
        return clean(str(error)).rstrip(".")
    except Exception:  # noqa: BLE001 - a host's error may do anything
        return "(its message cannot be read)"
