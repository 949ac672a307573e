"""Values that verification takes and returns: a request's credentials, and the proof of its sender."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Credentials", "Headers", "Verified"]


class Headers(Protocol):
    """The part of a header mapping that verification uses; werkzeug's ``Headers`` and a plain ``dict`` have it.

    Lookups should ignore case, as werkzeug's do. In a ``dict``, spell the names as the constants of :mod:`.signatures`.
    """

    def get(self, name: str, /) -> str | None:
        """Return a header's value, or None if the request has no such header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The parts of a request that can authenticate its sender.

    Args:
        headers: the request's headers.
        body: its raw bytes.
        token: the ``token`` of the callback URL; None if it has none.
        task_id: the task id of the callback URL's path, or of the batch item.
        attempt: the ``attempt`` of the callback URL; None if it has none.
        sender: the ``sender`` of the callback URL; None if it has none.
    """

    headers: Headers = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)
    token: str | None = field(default=None, repr=False)
    task_id: str = ""
    attempt: int | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """Proof of who sent a request.

    Args:
        scheme: the scheme that verified it.
        message_id: the signed id of the message, the same in every resend; None if the scheme has none.
    """

    scheme: str
    message_id: str | None = None
