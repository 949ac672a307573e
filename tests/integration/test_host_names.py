"""Applications that route by host name or subdomain, and limits of the host's on bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request

from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.errors import ConfigurationError
from tests.support.host import PREFIX, Host, completed

Build = Callable[..., Host]
BY_HOST = {"host_matching": True, "static_host": "www.example"}
BY_SUBDOMAIN = {"subdomain_matching": True}


def pages(app: Flask) -> None:
    """A page of the host's own for each kind of name."""
    if app.url_map.host_matching:
        app.add_url_rule("/who", "who", lambda: "www", host="www.example")
    else:
        app.add_url_rule("/who", "who", lambda: "bare")
        app.add_url_rule("/who", "sub", lambda site: site, subdomain="<site>")


@pytest.fixture(params=["by host", "by subdomain", "by neither, with a SERVER_NAME"])
def host(request: pytest.FixtureRequest, hosts: Build, sqlite_url: str) -> Host:
    match request.param:
        case "by host":
            return hosts(sqlite_url, flask=BY_HOST, after=pages)
        case "by subdomain":
            return hosts(sqlite_url, flask=BY_SUBDOMAIN, after=pages, SERVER_NAME="hub.example")
    return hosts(sqlite_url, SERVER_NAME="hub.example")


@pytest.mark.filterwarnings("ignore:Current server name:UserWarning")
@pytest.mark.parametrize("name", ["hub.example", "hooks.hub.example", "10.0.0.7:8000", "localhost"])
def test_our_routes_answer_under_every_name(host: Host, name: str):
    task_id, client, base = host.add_task(), host.app.test_client(), f"https://{name}"

    answer = client.post(host.path(task_id, 1), json=completed(task_id), base_url=base)
    assert (answer.status_code, answer.json and answer.json.get("outcome")) == (200, "processed")
    assert client.post(f"{PREFIX}/callbacks/", json={"events": []}, base_url=base).status_code in (200, 403)
    assert client.get(f"{PREFIX}/health", base_url=base).status_code == 200
    wrong = client.get(f"{PREFIX}/callback/{task_id}", base_url=base)
    assert (wrong.status_code, wrong.json and wrong.json["error"]["code"]) == (405, "method_not_allowed")
    unknown = client.get(f"{PREFIX}/health/more", base_url=base)
    assert unknown.json
    assert unknown.json["error"]["code"] == "route_not_found"


def test_the_hosts_own_pages_stay_where_they_are(hosts: Build, sqlite_url: str):
    by_host = hosts(sqlite_url, flask=BY_HOST, after=pages).app.test_client()
    assert by_host.get("/who", base_url="https://www.example").text == "www"
    assert by_host.get("/who", base_url="https://other.example").status_code == 404

    by_subdomain = hosts(sqlite_url, flask=BY_SUBDOMAIN, after=pages, SERVER_NAME="hub.example").app.test_client()
    assert by_subdomain.get("/who", base_url="https://hub.example").text == "bare"
    assert by_subdomain.get("/who", base_url="https://shop.hub.example").text == "shop"


def test_pages_and_metrics_say_why_they_cannot_be_mounted(hosts: Build, sqlite_url: str):
    app = hosts(sqlite_url, flask=BY_HOST).app

    with pytest.raises(ConfigurationError, match="DispatcherMiddleware"):
        app.register_blueprint(create_dashboard(permission=lambda: True), url_prefix="/webhooks")
    with pytest.raises(ConfigurationError, match="host_matching"):
        WebhookMetrics().init_app(app, path="/metrics")


def test_a_limit_of_the_hosts_does_not_apply_to_callbacks(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, MAX_CONTENT_LENGTH=1000)
    task_id = host.add_task()

    assert host.post(task_id, completed(task_id, "x" * 5000), attempt=1).status_code == 200


def test_it_does_where_a_function_of_the_hosts_reads_the_body_first(hosts: Build, sqlite_url: str):
    def read_everything(app: Flask) -> None:
        app.before_request(lambda: request.get_data() and None)

    host = hosts(sqlite_url, before=read_everything, MAX_CONTENT_LENGTH=1000)
    task_id: Any = host.add_task()

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert host.post(task_id, completed(task_id, "x" * 5000), attempt=1).status_code == 413
