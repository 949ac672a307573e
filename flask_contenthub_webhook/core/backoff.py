"""Delays before another try."""

from __future__ import annotations

import random
from datetime import timedelta

__all__ = ["jittered"]

_JITTER = 0.1


def jittered(delay: timedelta) -> timedelta:
    """Vary a delay by up to a tenth either way, so that what failed together is not retried together."""
    return delay * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, keeps no secret
