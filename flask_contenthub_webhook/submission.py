"""Handing tasks to the creator: an outbox, because the real creator's call blocks until the work is done.

``submit`` only writes the row. Afterwards somebody (a thread of this process, or the scheduler's sweep) claims it,
writes down that the creator is about to be called, calls it with no transaction open, and applies what it said through
the lifecycle. A crash at any point leaves a row that the next sweep finds.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import current_app, has_request_context, request
from sqlalchemy import event as sa_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from . import signals
from .backoff import jittered
from .callback_urls import address_callback_url, build_callback_url
from .config_values import base_url
from .creators.protocol import Creator, Job, RemoteState, Report
from .database import unit_of_work
from .errors import (
    ConfigurationError,
    CreatorError,
    CreatorRefused,
    CreatorUnreachable,
    DatabaseUnavailable,
    HandlerFailed,
    RequestRefused,
)
from .events import Internal
from .forwarding.targets import ForwardTarget, read_targets
from .inbound import Applied, Inbound, Source
from .lifecycle import apply_event
from .reports import failed_event, inbound_report
from .transitions import TaskState, Trigger

if TYPE_CHECKING:
    from .state import WebhookState
    from .store import Row

__all__ = ["SubmitReport", "cancel", "new_task", "retry", "submit_due"]

logger = logging.getLogger(__name__)

_LEASE_MARGIN = timedelta(seconds=30)
_PRIORITIES = range(1, 5)
_WAITING = "contenthub_webhook_submitted"


@dataclass(frozen=True, slots=True)
class SubmitReport:
    """What one sweep over the outbox did.

    Args:
        claimed: tasks that were due and ours.
        outcomes: how many of them were ``submitted``, ``refused``, ``unreachable``, ``unclear``,
            ``moved on`` or ``interrupted``.
        paused: True where the creator is left alone because it was down a moment ago.
    """

    claimed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    paused: bool = False


# --- writing the row -----------------------------------------------------------------------------------------


def new_task(
    state: WebhookState,
    *,
    topic: str | None = None,
    requirements: str | None = None,
    target_audience: str | None = None,
    keywords: Collection[str] | None = None,
    tone: str | None = None,
    priority: int = 2,
    auto_approve: bool = False,
    callback_url: str | None = None,
    callback_events: Collection[str] = ("completed", "failed"),
    max_retries: int | None = None,
    timeout: float | None = None,
    forward_to: Iterable[str | Mapping[str, Any] | ForwardTarget] = (),
    commit: bool = True,
    task_fields: Mapping[str, Any] | None = None,
    creator_options: Mapping[str, Any] | None = None,
) -> Any:
    """Write the row of a new task into the current session; see :meth:`.extension.ContentHubWebhook.submit`."""
    if state.creator is None:
        raise ConfigurationError(
            "There is no creator to submit to: set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to "
            "init_app."
        )
    if priority not in _PRIORITIES:
        raise ValueError(f"priority is {priority!r}; it must be 1 (low), 2, 3 or 4 (urgent).")
    if timeout is not None and timeout < 1:
        raise ValueError(f"timeout is {timeout!r}; it must be at least one second.")
    _check_lengths(state, topic=topic, target_audience=target_audience, tone=tone)
    now, task_id = state.clock(), str(uuid.uuid4())
    task = state.task_model(
        **task_fields or {},
        task_id=task_id,
        creator_task_id=str(uuid.uuid4()),
        topic=topic,
        requirements=requirements,
        target_audience=target_audience,
        keywords=None if keywords is None else list(keywords),
        tone=tone,
        priority=priority,
        auto_approve=auto_approve,
        max_retries=max_retries,
        timeout_seconds=None if timeout is None else round(timeout),
        callback_url=_callback_url(state, task_id, callback_url),
        callback_events=list(callback_events),
        creator_options=dict(creator_options) if creator_options else None,
        forward_to=_forward_to(state, forward_to),
        next_submit_at=now,
        next_poll_at=now + state.settings.poll_grace,
        deadline_at=now + (state.settings.task_timeout if timeout is None else timedelta(seconds=timeout)),
        created_at=now,
        updated_at=now,
    )
    session = state.db.session()
    session.add(task)
    session.info.setdefault(_WAITING, []).append(state)
    if not sa_event.contains(session, "after_commit", _hand_over_what_was_committed):
        sa_event.listen(session, "after_commit", _hand_over_what_was_committed)
    if commit:
        session.commit()
    return task


def _hand_over_what_was_committed(session: Session) -> None:
    """A hook of the session's; one for all tasks of a transaction."""
    if session.get_nested_transaction() is None:  # the release of a savepoint is no commit
        for state in session.info.pop(_WAITING, ()):
            state.dispatcher.kick(state, submit_next)


def retry(state: WebhookState, task_id: str) -> Applied:
    """Give a failed, timed-out or cancelled task another attempt, at once."""
    applied = apply_event(state, _internal(state, task_id, Trigger.RETRY, Source.HOST))
    state.dispatcher.kick(state, submit_next)
    return applied


def cancel(state: WebhookState, task_id: str) -> Applied:
    """Cancel an open task, and then tell the creator, which may or may not listen."""
    applied = apply_event(state, _internal(state, task_id, Trigger.CANCELLED, Source.HOST))
    state.dispatcher.run(_cancel_remotely, state, task_id)
    return applied


def _callback_url(state: WebhookState, task_id: str, explicit: str | None) -> str | None:
    """From the argument, else WEBHOOK_CALLBACK_BASE_URL, else (in debug only) the root of the request at hand."""
    settings = state.settings
    if not settings.enabled:
        return None  # nothing would be let in: such tasks are only polled
    base = explicit if explicit is not None else settings.callback_base_url
    if base is None and current_app.debug and has_request_context():
        base = request.root_url
    if base is not None and (urlsplit(base).scheme not in {"http", "https"} or not urlsplit(base).hostname):
        raise ValueError(f"callback_url is {base!r}; it must be an absolute http or https URL.")
    if base is not None and "{task_id}" in base:
        url = address_callback_url(settings, base.replace("{task_id}", task_id), task_id, 1)
    else:
        url = build_callback_url(settings, task_id, 1, base_url=_checked_base(base))
    _check_lengths(state, callback_url=url)
    return url


def _checked_base(base: str | None) -> str | None:
    try:
        return base_url(base)
    except ValueError as error:
        raise ValueError(f"callback_url is {base!r}; it {error}, or hold {{task_id}}.") from None


def _forward_to(
    state: WebhookState, given: Iterable[str | Mapping[str, Any] | ForwardTarget]
) -> list[dict[str, Any]] | None:
    try:
        targets = read_targets(given)
    except ValueError as error:
        raise ValueError(f"forward_to {error}.") from None
    if targets and not state.settings.forward_secrets:
        raise ConfigurationError(
            "WEBHOOK_FORWARD_SECRET is not set, and nothing is sent on unsigned. `flask webhook secret` makes one."
        )
    return [target.as_json() for target in targets] or None


def _check_lengths(state: WebhookState, **values: str | None) -> None:
    for name, value in values.items():
        most = getattr(state.store.tasks.columns[name].type, "length", None)
        if value is not None and most is not None and len(value) > most:
            raise ValueError(f"{name} has {len(value)} characters; at most {most} are kept.")


# --- calling the creator -------------------------------------------------------------------------------------


def submit_next(state: WebhookState) -> SubmitReport:
    """Hand over the next task that is due, if there is one."""
    return submit_due(state, limit=1)


def submit_due(state: WebhookState, *, limit: int = 100) -> SubmitReport:
    """Hand over what is due, several tasks at a time; any number of processes may do so at once.

    Args:
        state: the application's state.
        limit: tasks in one sweep, at the most.
    """
    creator = state.creator
    if creator is None:
        return SubmitReport()
    if state.creator_pause.is_on(state.clock()):
        return SubmitReport(paused=True)
    first = _claim_one(state)
    if first is None:
        return SubmitReport()
    outcomes = [_hand_over(state, creator, first)]
    left = limit - 1
    if left and not state.creator_pause.is_on(state.clock()):
        threads = min(left, state.settings.poll_concurrency)
        shares = [left // threads + (number < left % threads) for number in range(threads)]
        with ThreadPoolExecutor(threads, "contenthub-submit") as pool:
            for more in pool.map(lambda share: _hand_over_some(state, creator, share), shares):
                outcomes += more
    return SubmitReport(len(outcomes), Counter(outcomes), state.creator_pause.is_on(state.clock()))


def _hand_over_some(state: WebhookState, creator: Creator, most: int) -> list[str]:
    """One thread's share of a sweep; a creator that is down ends it."""
    outcomes: list[str] = []
    while len(outcomes) < most and not state.creator_pause.is_on(state.clock()):
        task = _claim_one(state)
        if task is None:
            break
        outcomes.append(_hand_over(state, creator, task))
    return outcomes


def _claim_one(state: WebhookState) -> Row | None:
    settings, now = state.settings, state.clock()
    longest = timedelta(seconds=settings.creator_submit_wait + 2 * settings.creator_timeout)
    try:
        with unit_of_work(state) as session:
            claimed = state.store.claim_submissions(session, now=now, until=now + longest + _LEASE_MARGIN, limit=1)
            session.commit()
    except SQLAlchemyError as error:
        logger.warning("No task could be claimed for submission; the next sweep tries again.", exc_info=error)
        return None
    return claimed[0] if claimed else None


def _hand_over(state: WebhookState, creator: Creator, task: Row) -> str:
    """Hand one task over; what the database does not take now is found again when the lease ends."""
    try:
        return _call(state, creator, task)
    except SQLAlchemyError as error:
        logger.warning("A submission was left to the next sweep.", exc_info=error, extra={"task_id": task["task_id"]})
        return "interrupted"


def _call(state: WebhookState, creator: Creator, task: Row) -> str:
    """Call the creator, with no transaction open, and apply what it says."""
    if task["submitting_since"] is not None:
        try:
            arrived = _has_arrived(creator, task)
        except CreatorError as error:
            return _postpone(state, task, error, may_have_arrived=True)
        if arrived is not False:
            _accepted(state, task, None)
            return "submitted" if arrived else "unclear"
    with unit_of_work(state) as session:
        still_ours = state.store.mark_submitting(session, task, state.clock())
        session.commit()
    if not still_ours:
        return "moved on"
    try:
        report = creator.submit(_job(task), wait=state.settings.creator_submit_wait)
    except CreatorUnreachable as error:
        return _postpone(state, task, error)
    except CreatorRefused as error:
        state.creator_pause.succeeded()
        return _refused(state, task, error)
    except CreatorError as error:
        # It may have the job or not; the poller finds out. Calling again could start the work twice.
        logger.warning("The answer to a submission is missing: %s", error.message, extra={"task_id": task["task_id"]})
        _accepted(state, task, None)
        return "unclear"
    state.creator_pause.succeeded()
    _accepted(state, task, report)
    return "submitted"


def _has_arrived(creator: Creator, task: Row) -> bool | None:
    """Whether an earlier call, which ended without a word (a crash), had reached the creator after all.

    Returns:
        None where the creator leaves it open: then the task counts as handed over, and the poller finds out.
    """
    creator_task_id = task["creator_task_id"]
    report = creator.statuses([creator_task_id], since=task["submitting_since"]).get(creator_task_id)
    return None if report is None else report.state is not RemoteState.MISSING


def _accepted(state: WebhookState, task: Row, report: Report | None) -> None:
    """The creator has the job; where it already brought the outcome, apply that too."""
    name = task["creator_task_id"] if report is None or report.creator_task_id is None else report.creator_task_id
    applied = _apply_or_log(
        state,
        _internal(state, task["task_id"], Trigger.SUBMITTED, Source.RESPONSE, task["attempt"], creator_task_id=name),
    )
    with unit_of_work(state) as session:
        values = state.store.read_task(session, task["task_id"])
        if applied is not None and values is not None and signals.task_submitted.receivers:
            entity = state.store.tasks.persistent(session, values)
            signals.send_quietly(
                signals.task_submitted, state.app, clean_up=session.rollback, task=entity, attempt=task["attempt"]
            )
    if values is not None and values["status"] == TaskState.CANCELLED:  # while the creator was being called
        _stop(state, task)
    if report is None:
        return
    if report.state is RemoteState.COMPLETED and report.result is None:
        report = _result_of(state, task, report)
    if (outcome := inbound_report(state, task, report, Source.RESPONSE)) is not None:
        _apply_or_log(state, outcome)


def _result_of(state: WebhookState, task: Row, report: Report) -> Report:
    """The result of a job that was done at once; where it cannot be had now, the poller gets it."""
    if state.creator is None:
        return report
    try:
        return state.creator.result(report.creator_task_id or task["creator_task_id"])
    except CreatorError as error:
        logger.warning("A result is left to the poller: %s", error.message, extra={"task_id": task["task_id"]})
        return Report(state=RemoteState.OPEN)


def _refused(state: WebhookState, task: Row, refusal: CreatorRefused) -> str:
    """The creator will never take this job as it is; the task fails with the creator's own words."""
    code = refusal.reason or "REFUSED"
    event = failed_event(
        state, task, code=code, message=refusal.message, details=refusal.details, source=Source.RESPONSE
    )
    _apply_or_log(state, event)
    return "refused"


def _postpone(state: WebhookState, task: Row, error: CreatorError, *, may_have_arrived: bool = False) -> str:
    now, backoff = state.clock(), state.settings.retry_backoff
    state.creator_pause.failed(now)
    due = now + jittered(backoff[min(task["submit_tries"], len(backoff) - 1)])
    logger.warning("The creator was not reached: %s", error.message, extra={"task_id": task["task_id"]})
    with unit_of_work(state) as session:
        state.store.postpone_submission(session, task, now=now, due=due, may_have_arrived=may_have_arrived)
        session.commit()
    return "unreachable"


def _cancel_remotely(state: WebhookState, task_id: str) -> None:
    """Tell the creator, if it has the job; whoever is just handing it over looks for a cancellation afterwards."""
    with unit_of_work(state) as session:
        task = state.store.read_task(session, task_id)
    if task is not None and task["submitted_at"] is not None:
        _stop(state, task)


def _stop(state: WebhookState, task: Row) -> None:
    if state.creator is None or task["creator_task_id"] is None:
        return
    try:
        state.creator.cancel(task["creator_task_id"])
    except CreatorError as error:
        logger.warning(
            "The creator was not told of a cancellation: %s", error.message, extra={"task_id": task["task_id"]}
        )


def _apply_or_log(state: WebhookState, inbound: Inbound) -> Applied | None:
    """Nobody waits for an answer here: what cannot be applied now is found again by the sweep or the poller."""
    try:
        return apply_event(state, inbound)
    except (HandlerFailed, DatabaseUnavailable):
        return None  # logged where it happened, and due for another try
    except RequestRefused as refusal:
        logger.warning("An answer of the creator was not applied: %s", refusal.message)
        return None


def _internal(
    state: WebhookState,
    task_id: str,
    trigger: Trigger,
    source: Source,
    attempt: int | None = None,
    **payload: Any,
) -> Inbound:
    now = state.clock()
    event = Internal(type=trigger.value, task_id=task_id, occurred_at=now, payload=payload)
    return Inbound(task_id=task_id, event=event, source=source, received_at=now, attempt=attempt, bound_to_task=True)


def _job(task: Row) -> Job:
    return Job(
        creator_task_id=task["creator_task_id"],
        topic=task["topic"],
        requirements=task["requirements"],
        target_audience=task["target_audience"],
        keywords=tuple(task["keywords"] or ()),
        tone=task["tone"],
        priority=task["priority"],
        callback_url=task["callback_url"],
        callback_events=tuple(task["callback_events"] or ()),
        options=task["creator_options"] or {},
    )
