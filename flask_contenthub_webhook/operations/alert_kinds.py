"""The table of alerts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from .alert_measures import failure_rate, signature_failures, silence
from .alert_rule import Measure

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..runtime.state import WebhookState

__all__ = ["FAILURE_RATE", "KINDS", "SIGNATURE_FAILURES", "SILENCE", "Kind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """An alert.

    Args:
        key: its configuration key; 0 switches the alert off.
        setting: returns the value of that key.
        limit: returns the least value that must be exceeded.
        window: returns the period that is looked at.
        measure: measures it now, given since when it has been raised.
        raised_words: the message while it is raised, from ``value``, ``limit``, ``sample`` and ``minutes``.
        clear_words: the message while it is not.
    """

    name: str
    key: str
    setting: Callable[[Settings], float]
    limit: Callable[[Settings], float]
    window: Callable[[Settings], timedelta]
    measure: Callable[[WebhookState, Session, datetime, datetime | None], Measure]
    raised_words: str
    clear_words: str


FAILURE_RATE = Kind(
    name="failure_rate",
    key="WEBHOOK_FAILURE_RATE_ALERT",
    setting=lambda settings: settings.failure_rate_alert,
    limit=lambda settings: settings.failure_rate_alert,
    window=lambda settings: settings.alert_window,
    measure=failure_rate,
    raised_words="The handlers failed at {value:.1%} of {sample} events within {minutes:g} min (limit: {limit:.1%}).",
    clear_words="The handlers failed at {value:.1%} of {sample} events within {minutes:g} min.",
)

SILENCE = Kind(
    name="silence",
    key="WEBHOOK_SILENCE_ALERT",
    setting=lambda settings: settings.silence_alert_minutes,
    limit=lambda _: 0,
    window=lambda settings: timedelta(minutes=settings.silence_alert_minutes),
    measure=silence,
    raised_words="No callback has come for {minutes:g} min; tasks that waited for one: {sample}.",
    clear_words="Callbacks come, or no task waits for one.",
)

SIGNATURE_FAILURES = Kind(
    name="signature_failures",
    key="WEBHOOK_SIGNATURE_FAILURE_ALERT",
    setting=lambda settings: settings.signature_failure_alert,
    limit=lambda settings: settings.signature_failure_alert,
    window=lambda settings: settings.alert_window,
    measure=signature_failures,
    raised_words="{sample} requests failed the signature check within {minutes:g} min, many more than before: is the "
    "key the same on both sides?",
    clear_words="{sample} requests failed the signature check within {minutes:g} min.",
)

KINDS = (FAILURE_RATE, SILENCE, SIGNATURE_FAILURES)
"""All alerts, in the order in which they are checked and shown."""
