"""What ``flask webhook doctor`` looks at: one module for each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .alerts import check_raised_alerts
from .backlog import check_backlog
from .base_url import check_base_url
from .callback import check_callback
from .celery import check_celery
from .clock import check_clock
from .creator import check_creator
from .findings import Examination, Finding, Level
from .schema import check_schema
from .secret import check_secrets
from .settings import check_enabled, check_keys, check_signatures

__all__ = ["CHECKS", "Examination", "Finding", "Level"]

CHECKS: Sequence[Callable[[Examination], list[Finding]]] = (
    check_keys,
    check_enabled,
    check_secrets,
    check_signatures,
    check_base_url,
    check_schema,
    check_backlog,
    check_raised_alerts,
    check_celery,
    check_creator,
    check_callback,
    check_clock,  # last: it looks at the answers of the two before
)
"""All checks, in the order in which one trouble explains the next."""
