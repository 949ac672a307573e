"""The checks of ``flask webhook doctor``, one module for each thing that can be wrong."""

from __future__ import annotations

from .base_url import check_base_url
from .callback import check_callback
from .celery import check_celery
from .clock import check_clock
from .connections import check_connections
from .creator import check_creator
from .findings import DoctorContext, Finding, Level
from .host import check_handlers, check_loggers
from .operations import check_backlog, check_jobs, check_raised_alerts
from .schema import check_schema
from .secret import check_secrets
from .server import check_server
from .settings import check_enabled, check_keys, check_signatures
from .tasks import check_tasks
from .transactions import check_transactions

__all__ = ["CHECKS", "DoctorContext", "Finding", "Level"]

CHECKS = (
    check_keys,
    check_enabled,
    check_secrets,
    check_signatures,
    check_base_url,
    check_schema,
    check_server,
    check_transactions,
    check_connections,
    check_handlers,
    check_loggers,
    check_backlog,
    check_jobs,
    check_raised_alerts,
    check_celery,
    check_creator,
    check_tasks,
    check_callback,
    check_clock,  # last: it compares the answers of the two before
)
"""All checks, in an order in which one problem explains the next."""
