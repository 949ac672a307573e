"""A recorder of the extension's signals, for a host's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

from blinker import NamedSignal
from flask import Flask

from .. import signals

__all__ = ["RecordedSignal", "SignalRecorder"]


class RecordedSignal(NamedTuple):
    """A signal that was sent, with its arguments."""

    name: str
    arguments: dict[str, Any]


class SignalRecorder:
    """A context manager that records the signals of one app, in order.

    Task and delivery objects belong to a session that ends with the event. So the arguments also hold the values that
    tests usually need: ``task_id``, ``status``, ``attempt``, ``delivery_id``.

    Args:
        app: the host's app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._connections = ExitStack()
        self.sent: list[RecordedSignal] = []

    @property
    def names(self) -> list[str]:
        """The names of the signals, in the order in which they were sent."""
        return [recorded.name for recorded in self.sent]

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        """Return the arguments of every signal of this name."""
        return [recorded.arguments for recorded in self.sent if recorded.name == name]

    def __iter__(self) -> Iterator[RecordedSignal]:
        return iter(self.sent)

    def __len__(self) -> int:
        return len(self.sent)

    def clear(self) -> None:
        """Forget the signals so far."""
        self.sent.clear()

    def __enter__(self) -> Self:
        for name in signals.__all__:
            signal: NamedSignal = getattr(signals, name)
            self._connections.enter_context(signal.connected_to(self._receiver(name), sender=self._app))
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()

    def _receiver(self, name: str) -> Any:
        def receive(_app: Flask, **arguments: Any) -> None:
            recorded = dict(arguments)
            if (task := arguments.get("task")) is not None:
                recorded |= {"task_id": task.task_id, "status": task.status, "attempt": task.attempt}
            if (delivery := arguments.get("delivery")) is not None:
                recorded["delivery_id"] = delivery.id
            self.sent.append(RecordedSignal(name, recorded))

        return receive
