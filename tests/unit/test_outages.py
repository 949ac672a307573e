"""What is said of an outage: one traceback, a line a minute, and a line at its end."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, StatementError

import flask_contenthub_webhook
from flask_contenthub_webhook.core.outages import Outage
from flask_contenthub_webhook.errors import without_parameters

logger = logging.getLogger("flask_contenthub_webhook.test")


class Moved:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Moved:
    return Moved()


@pytest.fixture
def outage(monotonic: Moved) -> Outage:
    return Outage("The database", monotonic=monotonic)


def fail(outage: Outage, kind: str = "away") -> None:
    outage.failed(logger, "An event was not applied.", OSError("no route"), kind=kind, brief="OSError: no route")


def shown(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    said = [(record.getMessage(), record.exc_info is not None) for record in caplog.records]
    caplog.clear()
    return said


def test_a_thousand_failures_in_a_minute_are_one_traceback_and_one_count(outage, monotonic, caplog):
    for _ in range(1000):
        fail(outage)
        monotonic.now += 0.0625

    assert shown(caplog) == [
        ("An event was not applied. OSError: no route; more of this kind are only counted.", True),
        ("The database has failed for 60 s: 960 more failures. The latest: OSError: no route", False),
    ]


def test_its_end_is_said_with_the_number_of_failures(outage, monotonic, caplog):
    fail(outage)
    monotonic.now += 5
    fail(outage)
    shown(caplog)

    monotonic.now += 11
    outage.worked(logger)
    outage.worked(logger)

    assert shown(caplog) == [("The database works again: in 5 s there were 2 failures.", False)]
    assert not outage.is_on


def test_what_half_works_does_not_end_it_at_every_turn(outage, monotonic, caplog):
    for _ in range(30):
        fail(outage)
        outage.worked(logger)
        monotonic.now += 1

    assert len(shown(caplog)) == 1
    assert outage.is_on


def test_an_outage_soon_after_another_one_is_a_line_without_a_traceback(outage, monotonic, caplog):
    fail(outage)
    monotonic.now += 60
    outage.worked(logger)
    shown(caplog)

    fail(outage)

    assert shown(caplog) == [("An event was not applied. OSError: no route", False)]


def test_another_kind_of_failure_is_shown_although_an_outage_is_on(outage, caplog):
    fail(outage)
    fail(outage, kind="no such table")
    fail(outage, kind="no such table")

    assert [has_traceback for _, has_traceback in shown(caplog)] == [True, True]


def test_an_hour_later_the_traceback_is_shown_again(outage, monotonic, caplog):
    fail(outage)
    monotonic.now += 3600
    fail(outage)

    assert [has_traceback for _, has_traceback in shown(caplog)] == [True, True]


def test_the_parameters_of_a_cause_are_hidden():
    statement = DBAPIError("INSERT", {"body": "the whole result"}, Exception("no"))
    other = StatementError("wrong", "UPDATE", {"body": "the whole result"}, None)
    try:
        try:
            raise other
        except StatementError:
            raise statement  # noqa: B904 - the context is what counts here
    except DBAPIError as error:
        outer = RuntimeError("a handler")
        outer.__cause__ = error

    without_parameters(outer)

    assert "the whole result" not in f"{statement} {other}"


def test_no_module_logs_an_error_of_the_database_by_itself():
    """One function decides how much is said: :func:`.log_failure`."""
    package = Path(flask_contenthub_webhook.__file__).parent
    handlers = [
        (path.name, handler)
        for path in package.rglob("*.py")
        for handler in ast.walk(ast.parse(path.read_text()))
        if isinstance(handler, ast.ExceptHandler) and handler.type is not None
    ]
    about_database = [(name, h) for name, h in handlers if "SQLAlchemyError" in ast.unparse(h.type)]
    assert len(about_database) > 15

    alone = [
        f"{name}:{handler.lineno}"
        for name, handler in about_database
        if any("exc_info" in (text := ast.unparse(node)) or "logger.exception" in text for node in handler.body)
    ]

    assert alone == []
