"""``flask webhook recover``: after a restored backup."""

from __future__ import annotations

from datetime import datetime

import click

from ..runtime.state import get_state
from ..storage.recovery import ask_about_open_tasks
from .commands import AppCommand
from .documents import json_option, print_document
from .parameters import read_moment
from .terminal import counted, moment

__all__ = ["recover_command"]


@click.command("recover", cls=AppCommand, short_help="Prepare the tasks of a restored backup.")
@click.option(
    "--since",
    type=read_moment,
    metavar="TIME",
    required=True,
    help="When the backup was made: 30m, 2h or 7d ago, or an ISO 8601 time. If unsure, give an earlier time.",
)
@json_option
def recover_command(since: datetime, *, as_json: bool) -> None:
    """Have the service asked about every open task before anything is submitted.

    Run it after restoring a backup and before starting any process. Tasks that waited for their submission in the
    backup may have been submitted since: the service is asked about each before it is handed over, and what it has
    done is applied. Running it twice does no harm.
    """
    state = get_state()
    now = state.now()
    if since > now:
        raise click.BadParameter("The backup cannot be from the future.", param_hint="--since")
    recovered = ask_about_open_tasks(state.database, since=since, now=now, time_to_answer=state.settings.task_timeout)
    if as_json:
        print_document({"since": since, **recovered._asdict()})
        return
    click.echo(
        f"Backup of {moment(since)} UTC. The service will be asked about "
        f"{counted(recovered.waiting, 'task that waits', 'tasks that wait')} for submission, and about "
        f"{counted(recovered.submitted, 'submitted one', 'submitted ones')}."
    )
    services = state.services
    if recovered.waiting and not (services and all(each.can_find or each.is_idempotent for each in services)):
        click.echo(
            "The service cannot look up a job by our name for it: waiting tasks count as submitted, and end with a "
            "callback or at their deadline.",
            err=True,
        )
    click.echo("Start the scheduler, and your other processes, now.")
