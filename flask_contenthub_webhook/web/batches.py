"""Split a batch of events into items, each with its own credentials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidPayload

__all__ = ["MAX_ITEMS", "BatchItem", "split_batch"]

MAX_ITEMS = 1000
"""The greatest number of events in a batch."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """An event of a batch.

    Args:
        payload: the event, without ``attempt``, ``token`` and ``sender``.
        attempt: as in the query of a callback URL, unchecked.
        token: as in the query of a callback URL, unchecked.
        sender: as in the query of a callback URL, unchecked; None unless URLs name creators, and there is a token.
    """

    payload: Mapping[str, Any] = field(repr=False)
    attempt: str | None
    token: str | None = field(repr=False)
    sender: str | None = None

    @property
    def body(self) -> bytes:
        """The event as it would have been sent alone, for the history; it does not contain the token."""
        return json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def task_id(self) -> str:
        """The task that the item names; empty if it names none."""
        task_id = self.payload.get("taskId")
        return task_id if isinstance(task_id, str) else ""


def split_batch(payload: Mapping[str, Any], *, names_senders: bool = False) -> list[BatchItem | InvalidPayload]:
    """Return the items of ``{"events": [...]}``, in order, with an error in the place of an invalid one.

    Args:
        payload: the parsed body.
        names_senders: creators are named in callback URLs, so that a token is made for one of them.

    Raises:
        InvalidPayload: there is no list of events, or it is too long.
    """
    events = payload.get("events")
    if not isinstance(events, list):
        raise InvalidPayload('A batch is {"events": [...]}; `events` is missing or no list - at `$.events`.')
    if len(events) > MAX_ITEMS:
        raise InvalidPayload(f"A batch holds {len(events)} events; at most {MAX_ITEMS} are accepted - at `$.events`.")
    return [_item(event, index, names_senders=names_senders) for index, event in enumerate(events)]


def _item(event: Any, index: int, *, names_senders: bool) -> BatchItem | InvalidPayload:
    if not isinstance(event, dict):
        return InvalidPayload(f"The event must be an object - at `$.events[{index}]`.")
    ours = {"attempt", "token"}
    if names_senders and event.get("token") is not None:  # without one, a `sender` is the event's own field
        ours.add("sender")
    payload = {name: value for name, value in event.items() if name not in ours}
    given = {name: event.get(name) for name in ours}
    for name in ("token", "sender"):
        if not isinstance(given.get(name), str | None):
            return InvalidPayload(f"The {name} must be a string - at `$.events[{index}].{name}`.")
    attempt = given["attempt"]
    return BatchItem(payload, None if attempt is None else str(attempt), given["token"], given.get("sender"))
