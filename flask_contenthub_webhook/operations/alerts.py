"""Check the alerts; any number of processes may do so at once, and one of them announces each change.

A check measures, decides, and writes the alert's row with a compare-and-set on its ``version``. The process whose write
succeeds then announces the change: a log line, and the signals. If it is killed before, these are lost, but the row,
and with it the page, the metric and ``flask webhook alerts``, is right. Announcing before the commit would call the
receivers, which send mail and the like, inside a transaction, where on SQLite every callback waits for them.
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
from ..core.logs import get_logger
from ..storage.rows import Row
from .alert_kinds import FAILURE_RATE, KINDS, Kind
from .alert_rule import Measure, is_raised

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["AlertStatus", "alerts_in", "check_alerts", "read_alerts", "read_rows"]

logger = get_logger(__name__)

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
    """The state of an alert.

    Args:
        name: ``failure_rate``, ``silence`` or ``signature_failures``.
        enabled: False if the configuration switches it off.
        raised: True while it is raised.
        value: the last measure: a share of events, waiting tasks, or requests; None if there is none yet.
        limit: the limit of the value, in the same unit.
        sample: the number of events, tasks or requests that were measured.
        window: the period that is looked at.
        changed_at: when it was last raised or cleared.
        checked_at: when a check last confirmed its state.
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
    """Return the alerts as the last check left them."""
    return alerts_in(state, read_rows(state))


def alerts_in(state: WebhookState, rows: Mapping[str, Row]) -> list[AlertStatus]:
    """Return the alerts of rows by their names."""
    return [_status(state, kind, rows.get(kind.name, _NEVER_CHECKED)) for kind in KINDS]


def check_alerts(state: WebhookState) -> list[AlertStatus]:
    """Measure, raise and clear the alerts, announce each change once, and return them all.

    An alert that was switched off while it was raised is cleared.
    """
    now = state.now()
    rows = _read_or_add_rows(state)  # before anything is measured: what changes after that fails the compare-and-set
    with state.database.session() as session:
        measures = {kind.name: _measure(state, session, kind, rows[kind.name], now) for kind in KINDS}
    for kind, row in _write(state, rows, measures, now):
        _announce(state, _status(state, kind, row, measures[kind.name]))
    rows = read_rows(state)
    return [_status(state, kind, rows[kind.name], measures[kind.name]) for kind in KINDS]


def _measure(state: WebhookState, session: Session, kind: Kind, row: Row, now: datetime) -> Measure | None:
    """Measure an alert; None if it is switched off."""
    if not kind.setting(state.settings):
        return None
    return kind.measure(state, session, now, row["changed_at"] if row["raised"] else None)


def _outcome(state: WebhookState, kind: Kind, row: Row, measure: Measure | None, now: datetime) -> dict[str, Any]:
    """Return the changes of an alert's row."""
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


def read_rows(state: WebhookState) -> dict[str, Row]:
    """Read the table of alerts, with all that is in it beside alerts, by names."""
    model = state.models.alert
    with state.database.session() as session:
        rows = session.execute(sa.select(model.__table__), bind_arguments={"mapper": sa.inspect(model)}).mappings()
        return {row["name"]: dict(row) for row in rows}


def _read_or_add_rows(state: WebhookState) -> dict[str, Row]:
    """Read the rows; add missing ones, as another process may do at the same moment."""
    rows, model = read_rows(state), state.models.alert
    missing = [kind.name for kind in KINDS if kind.name not in rows]
    for name in missing:
        try:
            with state.database.session() as session:
                session.add(model(name=name, **_NEVER_CHECKED))
                session.commit()
        except IntegrityError:
            logger.debug("Another process has added the row of the alert %s.", name)
    return read_rows(state) if missing else rows


def _write(
    state: WebhookState, rows: Mapping[str, Row], measures: Mapping[str, Measure | None], now: datetime
) -> list[tuple[Kind, Row]]:
    """Write the measures into unchanged rows, and return the alerts that this raised or cleared.

    The transaction begins with a write, which on SQLite might fail after a read. The rows are written in the same order
    everywhere, so that processes do not wait for each other in a circle.
    """
    model = state.models.alert
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


# --- announcing ----------------------------------------------------------------------------------------------


def _announce(state: WebhookState, alert: AlertStatus) -> None:
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
