"""Who is told of everything that happens, from what is at hand: no statement, no object of the ORM, no transaction.

The signals that come afterwards give their receivers rows, and reading these costs as much again as all else that a
callback does. What only counts is an observer instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..core.received import Inbound
from ..core.state_machine import Verdict

if TYPE_CHECKING:
    from .state import WebhookState

__all__ = ["Observer", "tell_of_event", "tell_of_forward"]

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Called after commits, and quickly done."""

    def event_handled(self, inbound: Inbound, verdict: Verdict) -> None:
        """An event had its effect, has none to have any more, or a handler failed at it."""

    def forward_tried(self, status: str) -> None:
        """A try to send an event on ended; the forward is ``delivered``, ``waiting`` or ``dead``."""


def tell_of_event(state: WebhookState, inbound: Inbound, verdict: Verdict) -> None:
    """Tell every observer what became of an event."""
    _tell(state, lambda observer: observer.event_handled(inbound, verdict))


def tell_of_forward(state: WebhookState, status: str) -> None:
    """Tell every observer what a try to send an event on made of it."""
    _tell(state, lambda observer: observer.forward_tried(status))


def _tell(state: WebhookState, call: Callable[[Observer], None]) -> None:
    """An observer that raises is logged and never felt."""
    for observer in state.observers:
        try:
            call(observer)
        except Exception:
            logger.exception("An observer raised; it missed something.")
