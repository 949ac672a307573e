"""Log what failed because of the database, without filling the disk while it is away."""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..errors import DatabaseUnavailable, EventNotStorable, without_parameters
from .database_errors import Trouble, is_contention, lacks_schema, not_stored, row_refusal, trouble_of
from .drivers import error_code, error_message

if TYPE_CHECKING:
    from .transactions import Database

__all__ = ["describe_briefly", "log_failure", "log_unexpected", "refusal_of"]

_LONGEST_MESSAGE = 200
_BEHIND = "The database is behind this version: run `flask db upgrade`"


def log_failure(
    database: Database, logger: Logger, message: str, error: BaseException, *, extra: Mapping[str, Any] | None = None
) -> None:
    """Log that some work failed because of the database; every module does it by this function.

    Another transaction in the way, and a database before its upgrade, cost a line without a traceback. All but the
    former counts as an outage: see :class:`.Outage`.

    Args:
        database: the application's database.
        logger: of the calling module.
        message: the work that failed, and the consequence; a sentence.
        error: what SQLAlchemy raised, or a driver about its connection.
        extra: the fields of the log line.
    """
    brief = describe_briefly(error)
    if isinstance(error, SQLAlchemyError) and is_contention(error):
        logger.warning("%s %s", message, brief, extra=extra)
        return
    shown = None if lacks_schema(error) else without_parameters(error)
    database.outage.failed(logger, message, shown, kind=_kind_of(error), brief=brief, extra=extra)


def log_unexpected(
    database: Database, logger: Logger, message: str, error: BaseException, *, extra: Mapping[str, Any] | None = None
) -> None:
    """Log any error that ends a piece of background work; what the database caused as in :func:`log_failure`."""
    if isinstance(error, SQLAlchemyError):
        log_failure(database, logger, message, error, extra=extra)
    elif not isinstance(error, DatabaseUnavailable):  # that was logged where it was raised
        logger.error(message, exc_info=without_parameters(error), extra=extra)


def refusal_of(
    database: Database, logger: Logger, message: str, error: SQLAlchemyError
) -> DatabaseUnavailable | EventNotStorable:
    """Log that an event was not stored, and return its refusal; a row that is refused is no outage."""
    if (refusal := row_refusal(error)) is None:
        log_failure(database, logger, message, error)
    else:
        logger.warning("The database refuses the row of an event: %s", refusal)
    return not_stored(error)


def describe_briefly(error: BaseException) -> str:
    """Return the class of an error and the first line of the driver's message, without statements and values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    brief = f"{type(cause).__name__}: {error_message(cause)[:_LONGEST_MESSAGE].strip()}"
    return f"{_BEHIND} ({brief})" if lacks_schema(error) else brief


def _kind_of(error: BaseException) -> str:
    """Return one kind for a database that is away, however it shows, and others for what it does not understand."""
    if not isinstance(error, SQLAlchemyError) or trouble_of(error) is not Trouble.STATEMENT:
        return "away"
    if lacks_schema(error):
        return "behind"
    code = error_code(error.orig) if isinstance(error, DBAPIError) else None
    return f"{type(error).__name__} {code}"
