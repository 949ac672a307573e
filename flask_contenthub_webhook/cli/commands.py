"""Base classes of the commands: the application's context, and errors as one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
from flask import Flask, current_app, has_app_context
from flask.cli import ScriptInfo
from sqlalchemy.exc import DBAPIError, UnboundExecutionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..errors import WebhookError
from ..runtime.state import EXTENSION_KEY, get_state
from ..storage.database_errors import lacks_schema
from ..storage.encoding import UnfitEncoding
from .terminal import escaped

__all__ = ["DATABASE_ERRORS", "AppCommand", "AppGroup", "PlainCommand", "describe_database_error", "enter_app"]

DATABASE_ERRORS = (DBAPIError, PoolTimeout, UnboundExecutionError, UnfitEncoding)
"""Errors of the database itself; any other error of SQLAlchemy is a bug."""

_NOT_MIGRATED = (
    "The database lacks tables or columns of this version ({message}). Run `flask webhook migrations install` and then "
    "`flask db upgrade`; `flask webhook doctor` lists what is missing."
)


class PlainCommand(click.Command):
    """A command that needs no application. An error is one line on stderr, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with an error as one line."""
        with clean_errors():
            return super().invoke(ctx)


class AppCommand(PlainCommand):
    """A command that runs in the context of the application."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with the application loaded."""
        with clean_errors():
            enter_app(ctx)
        return super().invoke(ctx)


class AppGroup(click.Group):
    """A group that needs the application, and so do its subcommands."""

    command_class = AppCommand

    def invoke(self, ctx: click.Context) -> Any:
        """Run the group, with the application loaded."""
        with clean_errors():
            enter_app(ctx)
            return super().invoke(ctx)


def enter_app(ctx: click.Context) -> Flask:
    """Load the application and push its context, unless the ``flask`` command has already done so.

    Parameters that say how long ago something was become times, by the database's clock.
    """
    if not has_app_context():
        ctx.with_resource(ctx.ensure_object(ScriptInfo).load_app().app_context())
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if EXTENSION_KEY not in app.extensions:
        raise WebhookError(
            f"ContentHubWebhook is not registered on the app {app.name!r}; call webhook.init_app(app, db) there."
        )
    for name, value in ctx.params.items():
        if isinstance(value, timedelta):  # ago
            ctx.params[name] = get_state(app).now() - value
    return app


@contextmanager
def clean_errors() -> Iterator[None]:
    """Turn our own errors and those of the database into one line."""
    try:
        yield
    except WebhookError as error:
        raise click.ClickException(escaped(error.message)) from error
    except DATABASE_ERRORS as error:
        raise click.ClickException(escaped(describe_database_error(error))) from error


def describe_database_error(error: Exception) -> str:
    """Return a database error as one sentence, with a remedy if there is one."""
    message = _first_line(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    if lacks_schema(error):
        return _NOT_MIGRATED.format(message=message)
    return f"The database cannot be used: {message}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
