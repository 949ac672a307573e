"""Recording the extension's signals in a host's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from flask import Flask

from .. import signals

__all__ = ["RecordedSignal", "SignalRecorder"]


class RecordedSignal(NamedTuple):
    """One signal that was sent."""

    name: str
    arguments: dict[str, Any]


class SignalRecorder:
    """Remembers the signals of one app, in order; a context manager.

    Task and delivery objects belong to a session that is gone after the event, so what a test usually asks for is
    remembered beside them: ``task_id``, ``status``, ``attempt``, ``delivery_id``.

    Args:
        app: the host's app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._connected: list[tuple[Any, Any]] = []
        self.sent: list[RecordedSignal] = []

    @property
    def names(self) -> list[str]:
        """The names of the signals, in the order in which they were sent."""
        return [recorded.name for recorded in self.sent]

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        """The arguments of every signal of this name."""
        return [recorded.arguments for recorded in self.sent if recorded.name == name]

    def __iter__(self) -> Iterator[RecordedSignal]:
        return iter(self.sent)

    def __len__(self) -> int:
        return len(self.sent)

    def clear(self) -> None:
        """Forget what was sent so far."""
        self.sent.clear()

    def __enter__(self) -> Self:
        for name in signals.__all__:
            signal = getattr(signals, name)
            receiver = self._receiver(name)
            signal.connect(receiver, sender=self._app, weak=False)
            self._connected.append((signal, receiver))
        return self

    def __exit__(self, *_: object) -> None:
        for signal, receiver in self._connected:
            signal.disconnect(receiver, sender=self._app)
        self._connected.clear()

    def _receiver(self, name: str) -> Any:
        def receive(_app: Flask, **arguments: Any) -> None:
            facts = dict(arguments)
            if (task := arguments.get("task")) is not None:
                facts |= {"task_id": task.task_id, "status": task.status, "attempt": task.attempt}
            if (delivery := arguments.get("delivery")) is not None:
                facts["delivery_id"] = delivery.id
            self.sent.append(RecordedSignal(name, facts))

        return receive
