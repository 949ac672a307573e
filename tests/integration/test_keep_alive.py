"""A request that no route takes gets an answer of ours, and the next callback on its connection is applied."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from flask import Flask

from tests.support.answers import code
from tests.support.host import Host
from tests.support.raw_http import PREFIX, callback, completed
from tests.support.web_server import WebServer, serve

JSON = {"Content-Type": "application/json"}
UNROUTED = {
    "an id with a line break": ("POST", callback("a%0ab"), 404, "task_not_found"),
    "no id": ("POST", f"{PREFIX}/callback/", 404, "task_not_found"),
    "no id and no slash": ("POST", f"{PREFIX}/callback", 404, "route_not_found"),
    "a path below a batch": ("POST", f"{PREFIX}/callbacks/x/y", 404, "route_not_found"),
    "PUT": ("PUT", callback("x"), 405, "method_not_allowed"),
    "PATCH of a batch": ("PATCH", f"{PREFIX}/callbacks", 405, "method_not_allowed"),
    "GET with a body": ("GET", callback("x"), 405, "method_not_allowed"),
    "an unheard-of method": ("PURGE", callback("x"), 405, "method_not_allowed"),
    "POST to health": ("POST", f"{PREFIX}/health", 405, "method_not_allowed"),
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    directory = tmp_path_factory.mktemp("keep-alive")
    with serve(f"sqlite:///{directory / 'test.db'}", directory, workers=1, threads=4) as server:
        yield server


@pytest.mark.parametrize(("method", "path", "status", "refusal"), UNROUTED.values(), ids=UNROUTED.keys())
def test_the_next_callback_on_the_connection_is_applied(
    web: WebServer, method: str, path: str, status: int, refusal: str
):
    """Twenty times, since what is unread cuts a connection only if it has arrived by then."""
    task_ids = web.database.add_tasks(20)
    for task_id in task_ids:
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
        connection.request(method, path, completed("x", "y" * 300_000), JSON)
        connection.auto_open = 0  # from here on, a connection that was cut is an error
        first = connection.getresponse()
        assert (first.status, json.loads(first.read())["error"]["code"]) == (status, refusal)

        connection.request("POST", callback(task_id), completed(task_id), JSON)
        second = connection.getresponse()
        assert (second.status, json.loads(second.read())["outcome"]) == (200, "processed")
        connection.close()


def test_a_wrong_method_is_told_the_right_ones(sqlite_host: Host):
    client = sqlite_host.app.test_client()

    assert set(client.put(callback("x")).allow) == {"OPTIONS", "POST"}
    assert set(client.post(f"{PREFIX}/health").allow) == {"GET", "HEAD", "OPTIONS"}
    assert client.head(f"{PREFIX}/callbacks").status_code == 405


def test_an_id_that_no_route_takes_passes_the_guards_first(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_REQUIRE_SIGNATURE=True)
    answer = host.app.test_client().post(callback("a%0ab"), data=b"{}", content_type="application/json")

    assert (answer.status_code, code(answer)) == (403, "signature_missing")


def test_other_paths_are_left_to_the_host(hosts, sqlite_url):
    def own_pages(app: Flask) -> None:
        app.add_url_rule(f"{PREFIX}/articles", view_func=lambda: "articles", endpoint="articles")
        app.register_error_handler(404, lambda error: ("the host's own page", 404))
        app.register_error_handler(405, lambda error: ("the host's own method", 405))

    client = hosts(sqlite_url, after=own_pages).app.test_client()

    assert client.get(f"{PREFIX}/articles").text == "articles"
    assert client.put(f"{PREFIX}/articles").text == "the host's own method"
    for path in ("/", "/callback/x", PREFIX, f"{PREFIX}/", f"{PREFIX}/callbackx/y", f"{PREFIX}x/callback/y"):
        assert client.post(path).text == "the host's own page"
