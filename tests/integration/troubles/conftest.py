"""Hosts on each database and through each driver, kept for a whole module: there are many cells in a matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from celery import Celery
from flask import Flask

from tests.support.database_drivers import MARIADB_DRIVERS, POSTGRES_DRIVERS, through, through_mysql
from tests.support.host import Host, make_host

DRIVERS = ("sqlite", *POSTGRES_DRIVERS, *MARIADB_DRIVERS)


def kind_of(driver: str) -> str:
    """The kind of database that a driver leads to."""
    return "postgresql" if driver in POSTGRES_DRIVERS else "mariadb" if driver in MARIADB_DRIVERS else driver


def url_through(url: str, driver: str) -> str:
    """The URL of a database for a driver to it."""
    match kind_of(driver):
        case "postgresql":
            return through(url, driver)
        case "mariadb":
            return through_mysql(url, driver)
        case _:
            return url


def _eager_celery(app: Flask) -> None:
    app.extensions["celery"] = Celery("eager", broker="memory://", set_as_current=False)
    app.extensions["celery"].conf.task_always_eager = True


@pytest.fixture(scope="module")
def host_of(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> Iterator[Callable[..., Host]]:
    """A function that gives the host for a way of processing, over empty tables; the driver is its parameter."""
    created = new_database(kind_of(request.param))
    make_host(created).close()
    url = url_through(created, request.param)
    made: dict[str, Host] = {}

    def host_of(processing: str = "inline") -> Host:
        if processing not in made:
            made[processing] = make_host(
                url,
                before=_eager_celery,
                create_tables=False,
                WEBHOOK_PROCESSING=processing,
                WEBHOOK_WORKER_THREADS=1,
            )
        host = made[processing]
        with host.app.app_context():
            for model in (host.state.task_model, host.state.delivery_model, host.Content):
                host.db.session.execute(sa.delete(model))
            host.db.session.commit()
        return host

    yield host_of
    for host in made.values():
        host.close()
