"""The group ``flask webhook`` and its commands."""

from __future__ import annotations

import click

from .alerts import alerts_command
from .audit import audit_command
from .background import hand_over_command, reconcile_command, scheduler_command, worker_command
from .conform import conform_command
from .credentials import secret_command, url_command
from .deliveries import deliveries_group
from .doctor import doctor_command
from .forwards import forwards_group
from .migrations import migrations_group
from .openapi import openapi_command
from .purge import purge_command
from .recover import recover_command
from .send import send_command
from .simulate import simulate_command
from .stats import stats_command
from .tasks import tasks_group

__all__ = ["webhook_group"]


@click.group("webhook")
def webhook_group() -> None:
    """Callbacks of the generation service: check, watch, repair.

    \b
    Exit codes: 0  success
                1  a problem was found, or the command failed
                2  wrong usage
    """  # noqa: D301 - click's mark for lines that are not wrapped


for _command in (
    *(doctor_command, secret_command, url_command, send_command, openapi_command, conform_command),
    *(tasks_group, deliveries_group, forwards_group, stats_command, alerts_command, audit_command),
    *(reconcile_command, hand_over_command, worker_command, scheduler_command),
    *(recover_command, simulate_command, purge_command, migrations_group),
):
    webhook_group.add_command(_command)
