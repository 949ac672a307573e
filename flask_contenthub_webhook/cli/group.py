"""The group ``flask webhook``; a command is imported when it is looked at, since every app registers the group."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

__all__ = ["webhook_group"]

_COMMANDS = {
    "alerts": "alerts:alerts_command",
    "audit": "audit:audit_command",
    "conform": "conform:conform_command",
    "deliveries": "deliveries:deliveries_group",
    "doctor": "doctor:doctor_command",
    "forwards": "forwards:forwards_group",
    "hand-over": "background:hand_over_command",
    "migrations": "migrations:migrations_group",
    "openapi": "openapi:openapi_command",
    "purge": "purge:purge_command",
    "reconcile": "background:reconcile_command",
    "recover": "recover:recover_command",
    "scheduler": "background:scheduler_command",
    "secret": "credentials:secret_command",
    "send": "send:send_command",
    "simulate": "simulate:simulate_command",
    "stats": "stats:stats_command",
    "tasks": "tasks:tasks_group",
    "url": "credentials:url_command",
    "worker": "background:worker_command",
}


class _Commands(MutableMapping[str, click.Command]):
    """Commands by their names."""

    def __init__(self, places: dict[str, str]) -> None:
        self._commands: dict[str, str | click.Command] = {**places}

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if isinstance(command, str):
            module, _, attribute = command.partition(":")
            command = self._commands[name] = getattr(import_module(f"{__package__}.{module}"), attribute)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


@click.group("webhook", commands=_Commands(_COMMANDS))
def webhook_group() -> None:
    """Callbacks of the generation service: check, watch, repair.

    \b
    Exit codes: 0  success
                1  a problem was found, or the command failed
                2  wrong usage
    """  # noqa: D301 - click's mark for lines that are not wrapped
