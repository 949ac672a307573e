"""The connection pool of the HTTP creator, and its configuration."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from flask_contenthub_webhook.creators import HttpCreator, RemoteState
from flask_contenthub_webhook.errors import ConfigurationError, CreatorUnreachable
from tests.support.creator_server import TrapRiddenApi, replay, success
from tests.support.http_creator import ID, KEY, ids

# --- the connection pool -------------------------------------------------------------------------------------


def test_many_threads_share_one_creator(serve, connect):
    names = ids(100)
    creator = connect(serve(TrapRiddenApi((name, "running") for name in names)))

    with ThreadPoolExecutor(16) as pool:
        reports = list(pool.map(creator.status, names))

    assert {report.state for report in reports} == {RemoteState.OPEN}


def test_nothing_is_opened_before_the_first_call_and_a_closed_creator_can_be_used_again(serve, connect):
    server = serve(replay("get-completed"))
    creator = connect(server)
    assert server.seen == []
    creator.close()

    creator.status(ID)
    creator.close()
    creator.status(ID)

    assert len(server.seen) == 2


def test_a_client_that_was_given_is_used_and_stays_open(serve, connect):
    server = serve(replay("get-completed"))
    with httpx.Client(headers={"X-Mine": "yes"}, follow_redirects=True) as client:
        creator = connect(server, client=client, api_key=KEY)
        creator.status(ID)
        creator.close()

        assert not client.is_closed
        assert server.seen[0].headers["x-mine"] == "yes"
        assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    with pytest.raises(CreatorUnreachable, match="closed"):
        creator.status(ID)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_opens_connections_of_its_own(serve, connect):
    server = serve(success({"id": ID, "status": "running"}))
    creator = connect(server)
    creator.status(ID)
    own = creator._calls._client()

    child = os.fork()
    if child == 0:  # pragma: no cover - the child
        os._exit(0 if creator._calls._client() is not own and creator.status(ID).state is RemoteState.OPEN else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert creator._calls._client() is own


# --- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:3001", "ftp://x", "http://", "http://x/?a=1", "http://x/#a", "http://[::1", "http://x:99999"],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(url):
    with pytest.raises(ConfigurationError, match="absolute http or https URL"):
        HttpCreator(url)


def test_a_url_with_a_path_leads_below_it(serve):
    server = serve(replay("get-completed"))
    creator = HttpCreator(server.url + "/creator/", timeout=5)

    creator.status(ID)
    creator.close()

    assert server.lines == [f"GET /creator/api/tasks/{ID}"]


@pytest.mark.parametrize("key", ["", "a key", "schlüssel", "key\r\nX-More: 1"])
def test_a_key_that_fits_no_header_is_refused_without_being_shown(key):
    with pytest.raises(ConfigurationError, match="CREATOR_API_KEY") as caught:
        HttpCreator("http://127.0.0.1:3001", api_key=key)

    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"mode": "fast"}, {"timeout": 0}, {"max_pages": 0}, {"concurrency": 0}, {"api_key": KEY}]
)
def test_arguments_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigurationError) as caught:
        HttpCreator("http://me:password@127.0.0.1:3001", **options)

    assert "password" not in str(caught.value)
    assert KEY not in str(caught.value)
