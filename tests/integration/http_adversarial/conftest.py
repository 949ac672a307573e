"""The servers under attack: one accepts unsigned requests, the other requires signatures."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.adversarial_http import SECRET
from tests.support.databases import KINDS
from tests.support.web_server import serve


@pytest.fixture(scope="module", params=KINDS)
def url_of(request, new_database):
    return partial(new_database, request.param)


@pytest.fixture(scope="module")
def web(url_of, tmp_path_factory):
    """A host without a secret: everything gets as far as it can."""
    with serve(url_of(), tmp_path_factory.mktemp("open"), env={"TEST_HOST_PROXY_FIX": "1"}) as web:
        yield web


@pytest.fixture(scope="module")
def signed(url_of, tmp_path_factory):
    """A host that believes nothing unsigned."""
    env = {"WEBHOOK_SECRET_KEY": SECRET, "WEBHOOK_REQUIRE_SIGNATURE": "true"}
    with serve(url_of(), tmp_path_factory.mktemp("strict"), env=env) as web:
        yield web


@pytest.fixture(autouse=True)
def _no_worker_died(request):
    """No input takes a worker down, whatever the client is told."""
    servers = [request.getfixturevalue(name) for name in ("web", "signed") if name in request.fixturenames]
    before = [server.gunicorn.worker_pids() for server in servers]
    yield
    assert [server.gunicorn.worker_pids() for server in servers] == before
