"""The line that says how many tests ran on each database: what a test runs on is read from its names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.counts import kinds_of


def item(name: str, *fixtures: str, on: tuple[str, ...] = ()) -> Any:
    marks = [SimpleNamespace(args=on)] if on else []
    return SimpleNamespace(name=name, fixturenames=fixtures, iter_markers=lambda _: marks)


@pytest.mark.parametrize(
    ("name", "fixtures", "kinds"),
    [
        ("test_postgres_is_named_alone[inline-mariadb]", ["hub"], {"mariadb"}),
        ("test_a[sqlite_url-solo-redis]", ["broker"], {"sqlite", "redis"}),
        ("test_a[mysqldb, a hidden error, inline]", ["host_of"], {"mariadb"}),
        ("test_a[pg8000]", ["url"], {"postgresql"}),
        ("test_a", ["postgres_host", "tmp_path"], {"postgresql"}),
        ("test_a", ["hosts", "sqlite_url"], {"sqlite"}),
        ("test_a[4 workers-mariadb with snapshots]", ["web"], {"mariadb"}),
        ("test_a", ["tmp_path"], set()),
    ],
)
def test_parameters_and_fixtures_tell(name, fixtures, kinds):
    assert kinds_of(item(name, *fixtures)) == kinds


def test_where_they_do_not_a_mark_does():
    assert kinds_of(item("test_a", on=("rabbitmq",))) == {"rabbitmq"}
