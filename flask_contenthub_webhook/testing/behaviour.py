"""The options of a simulated creator, in one frozen value."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from .faults import Faults

__all__ = ["Behaviour"]

_GAP = 5.0
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The options of :class:`~flask_contenthub_webhook.testing.CreatorSimulator`, which documents them.

    Raises:
        ValueError: a value is not valid.
    """

    seed: int
    time_scale: float = 1.0
    callback_timeout: float | None = None
    work_time: tuple[float, float] | None = (0.0, 0.0)
    callback_offset: tuple[float, float] = (-0.001, 0.002)
    faults: Faults = field(default_factory=Faults)
    api: Literal["real", "paper"] = "real"
    database: Literal["sqlite", "postgres"] = "sqlite"
    orphans: Literal["running", "failed"] = "running"
    latency: float = 0.0
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    tls: ssl.SSLContext | None = None
    keep_bodies: bool = True
    images_url: str = "http://127.0.0.1:19100/img"

    def __post_init__(self) -> None:
        if self.time_scale < 0 or self.latency < 0 or self.timeout <= 0:
            raise ValueError("time_scale and latency must not be negative, and callback_timeout must be positive.")
        if self.work_time is not None and not 0 <= self.work_time[0] <= self.work_time[1]:
            raise ValueError("work_time must be (shortest, longest) in seconds, or None.")
        if self.callback_offset[0] > self.callback_offset[1]:
            raise ValueError("callback_offset must be (earliest, latest) in seconds.")
        for name, allowed in (
            ("api", ("real", "paper")),
            ("database", ("sqlite", "postgres")),
            ("orphans", ("running", "failed")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}.")

    @property
    def gap(self) -> float:
        """Seconds between two tries of a callback."""
        return _GAP * self.time_scale

    @property
    def timeout(self) -> float:
        """Seconds that a receiver has to answer, redirects included."""
        return _TIMEOUT * self.time_scale if self.callback_timeout is None else self.callback_timeout

    @property
    def trapped(self) -> bool:
        """True if certain calls kill the server, as they kill the real one."""
        return self.api == "real"

    @property
    def postgres(self) -> bool:
        """True if its database is PostgreSQL."""
        return self.database == "postgres"
