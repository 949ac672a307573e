"""The measures of the alerts, read from the database, so that every process sees the same.

Every statement reads the deliveries of a short period (found by :mod:`..storage.id_search`), without bodies.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..core.received import Source
from ..core.state_machine import TaskState, Trigger, Verdict
from ..errors import SignatureExpired, SignatureInvalid, SignatureMissing
from ..models.delivery import WAITED_MS
from ..runtime.refusals import WINDOW as LIFE_OF_A_TALLY
from ..storage.id_search import received_within
from .alert_rule import Measure

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["failure_rate", "occurrences_within", "signature_failures", "silence"]

JUMP = 3
"""Multiple of the usual signature failures that counts as a jump."""
USUAL_WINDOWS = 6
"""Number of earlier windows over which the usual failures are averaged."""

_CREATORS = (Source.WEBHOOK.value, Source.POLL.value, Source.RESPONSE.value)
_FAILED = (Verdict.FAILED.value, Verdict.DEAD.value)
_HANDLED = (Verdict.PROCESSED.value, Verdict.REPLAYED.value, *_FAILED)
_SIGNATURE_CODES = (SignatureMissing.code, SignatureInvalid.code, SignatureExpired.code)


def failure_rate(state: WebhookState, session: Session, now: datetime, _raised_since: datetime | None) -> Measure:
    """Measure the share of recently decided events at which the host's handlers failed, and which are not applied yet.

    All events of the creator that reached the handlers count, from callbacks, polls and submit responses. Duplicates,
    ignored, stale, waiting and refused ones never did. An applied ``failed`` is a success of the handlers.

    The rate is the worst of all events together and of each type with enough events, so that a stream of ``progress``
    does not hide a handler of ``completed`` that always fails.
    """
    settings, d = state.settings, state.delivery_model
    counted = (
        sa.select(d.event, sa.func.count(), sa.func.count(sa.case((d.verdict.in_(_FAILED), 1))))
        .where(
            d.source.in_(_CREATORS),
            d.verdict.in_(_HANDLED),
            d.event != Trigger.SUBMITTED.value,  # an answer that only accepts the job
        )
        .group_by(d.event)
    )
    sums: dict[str, tuple[int, int]] = {}
    for decided in _decided_within(session, d, now - settings.alert_window):
        for event, events, failures in _rows(session, d, counted.where(*decided)):
            before = sums.get(event, (0, 0))
            sums[event] = (before[0] + int(events), before[1] + int(failures))
    by_type = list(sums.values())
    total = (sum(events for events, _ in by_type), sum(failures for _, failures in by_type))
    enough = [row for row in (total, *by_type) if row[0] >= settings.alert_min_sample]
    events, failures = max(enough or [total], key=_rate)
    return Measure(
        value=_rate((events, failures)), limit=settings.failure_rate_alert, sample=events, is_enough=bool(enough)
    )


def silence(state: WebhookState, session: Session, now: datetime, _raised_since: datetime | None) -> Measure:
    """Count the tasks that lack their callback while none at all arrives; 0 if any arrived.

    Any callback that was not refused breaks the silence. A task lacks its callback if it was handed over longer ago
    than the alert's period and is open, or if the poller settled it meanwhile.
    """
    settings, d, t = state.settings, state.delivery_model, state.task_model
    began = now - timedelta(minutes=settings.silence_alert_minutes)
    within = received_within(session, d, after=began)
    callback = sa.select(d.id).where(*within, d.source == Source.WEBHOOK.value, d.verdict != Verdict.REJECTED.value)
    if not settings.enabled or _rows(session, d, callback.order_by(d.id.desc()).limit(1)):
        return Measure(value=0, limit=0, sample=0)
    still_open = sa.select(sa.func.count()).where(
        t.next_poll_at.is_not(None),  # as of all open tasks, and of hardly any others: there is an index of these
        t.status.in_((TaskState.SUBMITTED.value, TaskState.PROCESSING.value)),
        t.callback_url.is_not(None),
        t.submitted_at <= began,
    )
    settled = (
        sa.select(sa.func.count())
        .select_from(sa.join(d, t, d.task_id == t.task_id))
        .where(
            *within,
            d.received_at <= now - min(settings.poll_grace, (now - began) / 2),  # its callback may be on the way
            d.source == Source.POLL.value,
            d.verdict == Verdict.PROCESSED.value,
            t.callback_url.is_not(None),
        )
    )
    waiting = sum(int(row[0]) for query in (still_open, settled) for row in _rows(session, t, query))
    return Measure(value=waiting, limit=0, sample=waiting)


def signature_failures(state: WebhookState, session: Session, now: datetime, raised_since: datetime | None) -> Measure:
    """Count recent requests whose signature was missing, wrong or too old, against the usual number.

    The usual number may be the noise of a scanner; a key that was changed on one side only shows as a jump. While the
    alert is raised, the number before that counts as usual, or a lasting jump would soon be the new normal.
    """
    settings, d = state.settings, state.delivery_model
    window = settings.alert_window
    count = _refused(session, d, since=now - window, until=None)
    before = (raised_since or now) - window
    usual = _refused(session, d, since=before - USUAL_WINDOWS * window, until=before) / USUAL_WINDOWS
    limit = max(settings.signature_failure_alert, JUMP * usual)
    return Measure(value=round(count, 1), limit=round(limit, 1), sample=round(count))


def occurrences_within(
    tallies: Iterable[tuple[datetime, datetime, int]], since: datetime, until: datetime | None
) -> float:
    """Estimate the number of refusals in a period, from rows that each stand for many.

    A row that extends beyond the period counts in part, as if its refusals had come evenly.

    Args:
        tallies: for each row, when it was opened, when it was last updated, and its number of refusals.
        since: begin of the period.
        until: its end; None is open.
    """
    total = 0.0
    for opened, updated, occurrences in tallies:
        begin, end = max(opened, since), updated if until is None else min(updated, until)
        if begin > end:
            continue
        lasted = updated - opened
        total += occurrences * ((end - begin) / lasted if lasted else 1)
    return total


def _decided_within(session: Session, d: Any, after: datetime) -> Iterable[tuple[sa.ColumnElement[bool], ...]]:
    """Return the conditions of the deliveries decided since a time: of those that had just come, and of the others.

    Ids find the first, and an index of those that waited finds the second; the literal makes databases recognise it.
    """
    waited = d.latency_ms >= sa.literal_column(str(WAITED_MS))
    came = received_within(session, d, after=after - timedelta(milliseconds=WAITED_MS))
    yield (*came, d.processed_at > after, sa.or_(d.latency_ms.is_(None), ~waited))
    yield (waited, d.processed_at > after)


def _rate(counted: tuple[int, int]) -> float:
    events, failures = counted
    return failures / events if events else 0.0


def _refused(session: Session, d: Any, *, since: datetime, until: datetime | None) -> float:
    query = sa.select(d.received_at, d.processed_at, d.occurrences).where(
        *received_within(session, d, after=since - LIFE_OF_A_TALLY, until=until),
        d.verdict == Verdict.REJECTED.value,
        d.error.in_(_SIGNATURE_CODES),
    )
    tallies = ((opened, updated or opened, count) for opened, updated, count in _rows(session, d, query))
    return occurrences_within(tallies, since, until)


def _rows(session: Session, model: Any, query: Any) -> list[Any]:
    return list(session.execute(query, bind_arguments={"mapper": sa.inspect(model)}))
