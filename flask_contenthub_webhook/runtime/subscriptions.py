"""The subscriptions made with ``webhook.on``, and the applications that each of them belongs to.

One extension object serves many applications, and a factory that subscribes runs once for each of them. A subscription
made at module level is for all applications, those still to come included. One made in a function is for the
application that this function, or the nearest of its callers, has among its variables, whether ``init_app`` was called
for it yet or not. Where none has, the current application is meant, and without a context all of them.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

from flask import Flask, current_app, has_app_context

from ..core.filters import Where, matches

__all__ = ["Subscription", "Subscriptions"]

_KEY = "contenthub_webhook_subscriptions"
_IMPORT = "importlib._bootstrap"
"""In the name of the frozen file whose functions execute a module that is imported."""


class Subscription(NamedTuple):
    """A handler of one event type, and the filter that must hold for it."""

    event_type: str
    handler: Callable[..., Any]
    where: Where | None

    def wants(self, event_type: str, payload: Mapping[str, Any]) -> bool:
        """Tell whether the handler is to be called for an event."""
        return event_type == self.event_type and matches(payload, self.where)

    def repeats(self, other: Subscription) -> bool:
        """Tell whether both come from one place in the source, as from a second run of a factory."""
        code = getattr(self.handler, "__code__", None)
        return code is not None and code is getattr(other.handler, "__code__", None)


class Subscriptions:
    """The subscriptions of one extension object."""

    def __init__(self) -> None:
        self._for_all: list[tuple[int, Subscription]] = []
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._apps_so_far = 0

    def add(self, subscription: Subscription, caller: FrameType | None) -> None:
        """Add a subscription, once, to the application that ``caller`` is about, or to all."""
        app = _app_meant_by(caller)
        if app is not None:
            _append(self._own(app), subscription)
            return
        number = self._apps_so_far
        self._for_all = [  # what an earlier run of a factory subscribed is not for the applications of later runs
            (then, other) for then, other in self._for_all if then == number or not subscription.repeats(other)
        ]
        self._for_all.append((number, subscription))
        for known in self._apps:
            if not any(subscription.repeats(other) for other in self._own(known)):
                _append(self._own(known), subscription)

    def register(self, app: Flask) -> list[Subscription]:
        """Return the list of an application, to which later subscriptions are added."""
        own = self._own(app)
        before, own[:] = list(own), []
        for subscription in (*(shared for _, shared in self._for_all), *before):
            _append(own, subscription)
        self._apps.add(app)
        self._apps_so_far += 1
        return own

    def _own(self, app: Flask) -> list[Subscription]:
        """Return the list kept with the application, so that both can be garbage-collected together."""
        lists: dict[Subscriptions, list[Subscription]] = app.extensions.setdefault(_KEY, {})
        return lists.setdefault(self, [])


def _append(own: list[Subscription], subscription: Subscription) -> None:
    if subscription not in own:
        own.append(subscription)


def _app_meant_by(caller: FrameType | None) -> Flask | None:
    """Return the one application that a subscription is for; None if it is for all."""
    frame = caller
    while frame is not None and not _is_function(frame):
        if frame.f_code.co_name == "<module>":
            return None
        frame = frame.f_back  # a class is subscribing: where it stands decides
    while frame is not None and _is_function(frame):
        apps = {id(value): value for value in frame.f_locals.values() if issubclass(type(value), Flask)}
        if apps:
            return next(iter(apps.values())) if len(apps) == 1 else None
        frame = frame.f_back
    is_import = frame is not None and frame.f_back is not None and _IMPORT in frame.f_back.f_code.co_filename
    return current_app._get_current_object() if has_app_context() and not is_import else None  # type: ignore[attr-defined]


def _is_function(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)
