"""How many tests ran on each database and broker: a line at the end of a run, so that none goes missing unnoticed."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["TITLE", "CountsByDatabase", "kinds_of"]

TITLE = "tests by database:"
_WORDS = {
    "sqlite": ("sqlite",),
    "postgresql": ("postgresql", "postgres", "psycopg", "psycopg2", "pg8000", "pgbouncer"),
    "mariadb": ("mariadb", "pymysql", "mysqldb"),
    "redis": ("redis",),
    "rabbitmq": ("rabbitmq",),
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words}
_PROPERTY = "database"


def kinds_of(item: pytest.Item) -> set[str]:
    """What a test runs on: its parameters say so, or the names of its fixtures, and the ``on`` mark where neither does.

    A fixture with parameters may ask for any of several others; then the parameter decides.
    """
    text = " ".join([item.name.partition("[")[2], *getattr(item, "fixturenames", ())])
    kinds = {_KINDS[word] for word in re.split(r"[\W_]+", text.lower()) if word in _KINDS}
    return kinds.union(*(mark.args for mark in item.iter_markers("on")))


class CountsByDatabase:
    """A plugin of pytest's. Workers of a parallel run tell their reports, and the one that collects these counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(_WORDS, 0))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.user_properties += [(_PROPERTY, kind) for kind in sorted(kinds_of(item))]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped:
            self.counts.update(str(kind) for name, kind in report.user_properties if name == _PROPERTY)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"{TITLE} {', '.join(f'{kind} {count}' for kind, count in self.counts.items())}")
