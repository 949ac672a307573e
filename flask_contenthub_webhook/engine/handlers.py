"""Find the handlers of an event, and call them inside its transaction.

All handlers of an event run in the transaction that changes the task, in the order in which they were connected. The
first error rolls all of them back. Handlers must not commit or roll back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import CO_COROUTINE, isasyncgen, isawaitable, isgenerator
from time import monotonic
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from blinker import NamedSignal

from .. import signals
from ..core.events import Custom, Event, Internal
from ..core.state_machine import UNHEARD, Decision, TaskState, Verdict
from ..errors import ends_process
from ..runtime.tracing import Tracing, traced_call
from ..storage.commit_guard import TransactionGuard
from ..storage.transactions import Transaction

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy.orm import Session

    from ..runtime.state import WebhookState

__all__ = ["HandlerCall", "HandlerError", "call_handlers", "handlers_of", "say_if_unheard"]

_SIGNALS: Mapping[TaskState, NamedSignal | None] = {
    TaskState.PENDING: None,
    TaskState.SUBMITTED: None,
    TaskState.COMPLETED: signals.task_completed,
    TaskState.FAILED: signals.task_failed,
    TaskState.PROCESSING: signals.task_progress,
    TaskState.TIMEOUT: signals.task_timed_out,
    TaskState.CANCELLED: signals.task_cancelled,
}


class HandlerError(Exception):
    """A handler raised, or ended the transaction; ``__cause__`` is what it raised.

    Args:
        handler: its name.
        seconds: the time that the handlers took, if they were called.

    ``task_id`` and ``attempt``, those of the event, are filled in by the caller.
    """

    def __init__(self, handler: str, seconds: float | None = None) -> None:
        super().__init__(handler)
        self.handler = handler
        self.seconds = seconds
        self.task_id = ""
        self.attempt: int | None = None


class HandlerCall(NamedTuple):
    """A handler, and its arguments except the task and the delivery."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]


def handlers_of(
    state: WebhookState, event: Event, decision: Decision, arguments: Mapping[str, Any]
) -> list[HandlerCall]:
    """Return the receivers of the signal for the new state, then the subscribers of the event type.

    Args:
        state: the application's state.
        event: the event.
        decision: its effect on the task.
        arguments: the arguments of the signal, except the task and the delivery.
    """
    signal = None if decision.to is None else _SIGNALS[decision.to]
    if decision.will_retry:
        signal = signals.task_failed
    calls: list[HandlerCall] = []
    if signal is not None and signal.receivers:
        calls += [HandlerCall(receiver, arguments) for receiver in signal.receivers_for(state.app)]
    if isinstance(event, Internal):
        return calls
    calls += [HandlerCall(handler, {"event": event}) for handler in _subscribers(state, event)]
    return calls


def say_if_unheard(state: WebhookState, event: Event, decision: Decision) -> Decision:
    """Give the decision on a custom event a reason if no handler is called for it."""
    is_unheard = isinstance(event, Custom) and decision.verdict is Verdict.PROCESSED and not _subscribers(state, event)
    return replace(decision, reason=UNHEARD) if is_unheard else decision


def _subscribers(state: WebhookState, event: Event) -> list[Callable[..., Any]]:
    return [each.handler for each in state.subscriptions if each.wants(event.type, event.payload)]


def call_handlers(
    app: Flask,
    transaction: Transaction,
    calls: Sequence[HandlerCall],
    *,
    task: Any,
    delivery: Any,
    tracing: Tracing | None = None,
) -> None:
    """Call handlers in order, and flush what they added to the session.

    Raises:
        HandlerError: one raised, ended the transaction, changed the task's state, or added what cannot be written.
    """
    session, name, began = transaction.session(), "", monotonic()
    guard = TransactionGuard(session, transaction.connection, task=task, delivery=delivery)
    try:
        with guard:
            for call in calls:
                name = getattr(call.function, "__qualname__", type(call.function).__qualname__)
                function = call.function if _is_plain(call.function) else app.ensure_sync(call.function)
                if tracing is not None:
                    function = traced_call(tracing, f"handler {name}", function)
                _require_run(function(app, task=task, delivery=delivery, **call.arguments))
                guard.check()
            if not _is_clean(session):
                name = "flush"
                session.flush()
                guard.check()
            guard.check_mark()
    except BaseException as error:
        if ends_process(error):
            raise
        raise HandlerError(name, monotonic() - began) from (guard.lost or error)


def _is_clean(session: Session) -> bool:
    """Tell whether a flush would do nothing."""
    look: Callable[[], bool] | None = getattr(session, "_is_clean", None)  # no collections are made only to be counted
    return look() if look is not None else not (session.new or session.dirty or session.deleted)


def _is_plain(function: Callable[..., Any]) -> bool:
    """Tell whether this is a function that Flask calls as it is, without the search that Flask makes to know."""
    if not isinstance(function, FunctionType) or vars(function):  # one of the attributes may say that it is a coroutine
        return False
    return not function.__code__.co_flags & CO_COROUTINE


def _require_run(returned: object) -> None:
    """Refuse what has not run: the body of a generator, or a coroutine that Flask did not know for one."""
    if returned is None:
        return
    if isgenerator(returned) or isasyncgen(returned) or isawaitable(returned):
        if isinstance(returned, CoroutineType):
            returned.close()  # or Python warns that it was never awaited
        raise TypeError(f"The handler returned a {type(returned).__name__}; nothing of it has run.")
