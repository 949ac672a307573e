"""Hosts on each database and through each driver, kept for a whole module: there are many cells in a matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from celery import Celery
from flask import Flask

from tests.support.database_drivers import POSTGRES_DRIVERS, through
from tests.support.host import Host, make_host

DRIVERS = ("sqlite", *POSTGRES_DRIVERS)


def _eager_celery(app: Flask) -> None:
    app.extensions["celery"] = Celery("eager", broker="memory://", set_as_current=False)
    app.extensions["celery"].conf.task_always_eager = True


@pytest.fixture(scope="module")
def host_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Host]]:
    """A function that gives the host for a way of processing, over empty tables; the driver is its parameter."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('troubles') / 'test.db'}"
        make_host(url).close()
    else:
        created = request.getfixturevalue("postgres").create_database()
        make_host(created).close()
        url = through(created, request.param)
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
