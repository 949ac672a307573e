"""Checking the alerts: any number of processes may, at once, and each change is told by one of them.

The row of an alert says whether it is raised. A check measures, decides, and writes with a compare-and-set on the
row's ``version``; the process whose write counts tells the world, after the commit: a log line, and the signals. A
process that is killed between the commit and the telling leaves that to nobody: the log line and the signals are lost,
while the row, and with it the page, the metric and ``flask webhook alerts``, says what is. Telling before the commit
would tell at least once, but call the receivers, which send mail and the like, inside a transaction, where on SQLite
every callback waits for them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from .. import signals
from ..models.defaults import default_alert_model
from ..storage.rows import Row
from .alert_kinds import FAILURE_RATE, KINDS, Kind
from .alert_rule import Measure, is_raised

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["AlertStatus", "check_alerts", "read_alerts"]

logger = logging.getLogger(__name__)

_NEVER_CHECKED: Row = {
    "raised": False,
    "changed_at": None,
    "checked_at": None,
    "value": None,
    "sample": 0,
    "version": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStatus:
    """Where an alert stands.

    Args:
        name: ``failure_rate``, ``silence`` or ``signature_failures``.
        enabled: whether the configuration switches it on.
        raised: whether it is raised.
        value: what was measured last: a share of events, tasks that wait, requests; None where nothing was yet.
        limit: what the value is held against, in the same unit; after a check the one that was found then.
        sample: how many events, tasks or requests that was measured on.
        window: the time that is looked at.
        changed_at: when it was last raised or cleared.
        checked_at: when a check last found it to be so.
        message: one sentence for people.
    """

    name: str
    enabled: bool
    raised: bool
    value: float | None
    limit: float
    sample: int
    window: timedelta
    changed_at: datetime | None
    checked_at: datetime | None
    message: str


def read_alerts(state: WebhookState) -> list[AlertStatus]:
    """Where the alerts stand, as the last check left them."""
    rows = _read_rows(state)
    return [_status(state, kind, rows.get(kind.name, _NEVER_CHECKED)) for kind in KINDS]


def check_alerts(state: WebhookState) -> list[AlertStatus]:
    """Measure, raise and clear the alerts, and tell of each change once.

    An alert that was switched off while it was raised is cleared.

    Args:
        state: the application's state.

    Returns:
        Where the alerts stand now.
    """
    now = state.clock()
    rows = _read_or_add_rows(state)  # before anything is measured: what changes after that fails the compare-and-set
    with state.database.session() as session:
        measures = {kind.name: _measure(state, session, kind, rows[kind.name], now) for kind in KINDS}
    for kind, row in _write(state, rows, measures, now):
        _tell(state, _status(state, kind, row, measures[kind.name]))
    rows = _read_rows(state)
    return [_status(state, kind, rows[kind.name], measures[kind.name]) for kind in KINDS]


def _measure(state: WebhookState, session: Session, kind: Kind, row: Row, now: datetime) -> Measure | None:
    """What is measured for an alert; None where it is switched off."""
    if not kind.setting(state.settings):
        return None
    return kind.measure(state, session, now, row["changed_at"] if row["raised"] else None)


def _outcome(state: WebhookState, kind: Kind, row: Row, measure: Measure | None, now: datetime) -> dict[str, Any]:
    """What a measure makes of an alert's row."""
    values: dict[str, Any]
    if measure is None:
        raised, values = False, {"value": None, "sample": 0}
    else:
        raised = is_raised(
            measure,
            before=row["raised"],
            not_above_for=now - (row["checked_at"] or now),
            window=kind.window(state.settings),
        )
        values = {"value": measure.value, "sample": measure.sample}
    if raised != row["raised"]:
        return {**values, "raised": raised, "changed_at": now, "checked_at": now, "version": row["version"] + 1}
    if not raised or (measure is not None and measure.is_above):
        values["checked_at"] = now
    return values


def _status(state: WebhookState, kind: Kind, row: Row, measure: Measure | None = None) -> AlertStatus:
    settings = state.settings
    limit, window = kind.limit(settings) if measure is None else measure.limit, kind.window(settings)
    words = kind.raised_words if row["raised"] else kind.clear_words
    if not kind.setting(settings):
        words = f"{kind.key} is 0, so this alert is switched off."
    return AlertStatus(
        name=kind.name,
        enabled=bool(kind.setting(settings)),
        raised=row["raised"],
        value=row["value"],
        limit=limit,
        sample=row["sample"],
        window=window,
        changed_at=row["changed_at"],
        checked_at=row["checked_at"],
        message=words.format(
            value=row["value"] or 0, limit=limit, sample=row["sample"], minutes=window / timedelta(minutes=1)
        ),
    )


# --- the rows ------------------------------------------------------------------------------------------------


def _read_rows(state: WebhookState) -> dict[str, Row]:
    model = default_alert_model(state.database.db)
    with state.database.session() as session:
        rows = session.execute(sa.select(model.__table__), bind_arguments={"mapper": sa.inspect(model)}).mappings()
        return {row["name"]: dict(row) for row in rows}


def _read_or_add_rows(state: WebhookState) -> dict[str, Row]:
    """The very first check of all finds rows missing and adds them; another may do so at the same moment."""
    rows, model = _read_rows(state), default_alert_model(state.database.db)
    missing = [kind.name for kind in KINDS if kind.name not in rows]
    for name in missing:
        try:
            with state.database.session() as session:
                session.add(model(name=name, **_NEVER_CHECKED))
                session.commit()
        except IntegrityError:
            logger.debug("Another process has added the row of the alert %s.", name)
    return _read_rows(state) if missing else rows


def _write(
    state: WebhookState, rows: Mapping[str, Row], measures: Mapping[str, Measure | None], now: datetime
) -> list[tuple[Kind, Row]]:
    """Write what the checks found, where nobody changed it meanwhile; the alerts whose change counted, as they are.

    A transaction of its own, which begins with a write: on SQLite a transaction that has read before may not be able
    to. The rows are always taken in the same order, so that no two processes wait for each other.
    """
    model = default_alert_model(state.database.db)
    table, changed = model.__table__, list[tuple[Kind, Row]]()
    with state.database.session() as session:
        connection = session.connection(bind_arguments={"mapper": sa.inspect(model)})
        for kind in KINDS:
            row = rows[kind.name]
            values = _outcome(state, kind, row, measures[kind.name], now)
            as_seen = sa.update(table).where(table.c.name == kind.name, table.c.version == row["version"])
            ours = connection.execute(as_seen.values(**values)).rowcount == 1
            if ours and "raised" in values:
                changed.append((kind, {**row, **values}))
        session.commit()
    return changed


# --- telling -------------------------------------------------------------------------------------------------


def _tell(state: WebhookState, alert: AlertStatus) -> None:
    logger.log(
        logging.WARNING if alert.raised else logging.INFO,
        "Alert %s %s: %s",
        alert.name,
        "raised" if alert.raised else "cleared",
        alert.message,
        extra={"alert": alert.name, "raised": alert.raised, "value": alert.value, "sample": alert.sample},
    )
    signals.send_quietly(signals.alert_changed, state.app, alert=alert)
    if alert.name == FAILURE_RATE.name:
        signals.send_quietly(
            signals.failure_rate_exceeded,
            state.app,
            rate=alert.value or 0.0,
            sample=alert.sample,
            window=alert.window,
            cleared=not alert.raised,
        )
