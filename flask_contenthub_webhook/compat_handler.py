"""Applying events from Python: the three methods that users of the original know, over the same lifecycle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .core.events import parse_event
from .core.received import Applied, Inbound, Source
from .engine.process import process
from .runtime.state import get_state

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["WebhookHandler"]


class WebhookHandler:
    """Applies events that the host received by a way of its own, a message queue for example.

    The caller vouches for them: no signature is checked. Everything else is as for a callback: the state machine, the
    history, the handlers, the exactly-once effect.

    Args:
        app: the application; by default the current one at each call.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._app = app

    def handle_task_completed(self, task_id: str, payload: Mapping[str, Any], *, attempt: int | None = None) -> Applied:
        """Apply a ``completed`` event.

        Args:
            task_id: our id of the task.
            payload: the event as on the wire; ``event`` and ``taskId`` may be left out.
            attempt: the attempt it speaks for, from 1; None speaks for the current one.

        Raises:
            InvalidPayload: a field is missing or of the wrong type.
            TaskNotFound: there is no such task.
            HandlerFailed: a signal handler raised; the event is kept and tried again.
            DatabaseUnavailable: nothing was written.
        """
        return self._handle("completed", task_id, payload, attempt)

    def handle_task_failed(self, task_id: str, payload: Mapping[str, Any], *, attempt: int | None = None) -> Applied:
        """Apply a ``failed`` event; arguments and errors as for :meth:`handle_task_completed`."""
        return self._handle("failed", task_id, payload, attempt)

    def handle_task_progress(self, task_id: str, payload: Mapping[str, Any], *, attempt: int | None = None) -> Applied:
        """Apply a ``progress`` event; arguments and errors as for :meth:`handle_task_completed`."""
        return self._handle("progress", task_id, payload, attempt)

    def _handle(self, type_: str, task_id: str, payload: Mapping[str, Any], attempt: int | None) -> Applied:
        state = get_state(self._app)
        whole = {"taskId": task_id, **payload, "event": type_}
        event = parse_event(whole, required_fields=state.settings.required_result_fields)
        body = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
        inbound = Inbound(
            task_id=task_id,
            event=event,
            source=Source.HOST,
            received_at=state.clock(),
            attempt=attempt,
            bound_to_task=True,
            body=body,
        )
        return process(state, inbound)
