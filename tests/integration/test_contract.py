"""The HTTP contract as a file: it is made of the code, valid, and holds whatever a client sends to a real gunicorn.

``CONTRACT_CASES`` is the number of requests for each route and kind; ``make contract`` sends more than 10,000 in all.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from docs.tables import CONTRACT, contract
from flask_contenthub_webhook.core.signatures import sign_headers, sign_url
from tests.support.host import PREFIX, SECRET, completed, failed, progress
from tests.support.web_server import WebServer, figure, serve
from tests.support.workers import size

CASES = size("CONTRACT_CASES", 10)
DOCUMENT = contract()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ROUTES = [f"{path} {name}" for path, routes in DOCUMENT["paths"].items() for name in routes if name != "parameters"]
KINDS = {"as_described": GenerationMode.POSITIVE, "otherwise": GenerationMode.NEGATIVE}
ids: list[str] = []
"""Of the tasks on the server."""


def test_the_file_is_what_the_code_says():
    assert json.loads(CONTRACT.read_text(encoding="utf-8")) == DOCUMENT, "run: python docs/tables.py"


def test_the_file_is_valid():
    validate(DOCUMENT)


def test_an_application_prints_its_own(hosts: Any, sqlite_url: str):
    host = hosts(
        sqlite_url,
        WEBHOOK_URL_PREFIX="/hooks",
        WEBHOOK_EVENTS=["illustrated"],
        WEBHOOK_SIGNATURE_SCHEMES=["github"],
        WEBHOOK_REQUIRE_SIGNATURE=False,
    )

    document = json.loads(host.app.test_cli_runner().invoke(args=["webhook", "openapi"]).stdout)

    validate(document)
    assert set(document["paths"]) == {
        f"/hooks/{rest}" for rest in ("callback/{task_id}", "callbacks", "callbacks/{sender}", "health")
    }
    assert {"$ref": "#/components/schemas/Custom_illustrated"} in document["components"]["schemas"]["Event"]["oneOf"]
    assert document["paths"]["/hooks/callback/{task_id}"]["post"]["security"] == [{}, {"github": []}]


@pytest.mark.parametrize("event", [completed("t"), failed("t"), progress("t", 4)], ids=lambda event: event["event"])
def test_what_the_real_sender_sends_is_described(event: dict[str, Any]):
    described = {"$ref": "#/components/schemas/Event", "components": DOCUMENT["components"]}

    jsonschema.validate(event, described, jsonschema.Draft202012Validator)
    for needed in ("event", "taskId"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**event, needed: None}, described, jsonschema.Draft202012Validator)


# --- a real server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Ours, with tasks in every state that callbacks find."""
    folder: Path = tmp_path_factory.mktemp("contract")
    env = {"WEBHOOK_SECRET_KEY": SECRET, "WEBHOOK_REQUIRE_SIGNATURE": "true"}
    with serve(f"sqlite:///{folder / 'test.db'}", folder, env=env, workers=1) as server:
        ids[:] = server.database.add_tasks(50)
        yield server


def believed(case: Any, base_url: str, number: int) -> requests.PreparedRequest:
    """The case, about a task of ours and with a proof of the one kind or the other."""
    task_id = ids[number % len(ids)]
    if "task_id" in (case.path_parameters or {}):
        case.path_parameters["task_id"] = task_id
    if isinstance(case.body, dict) and isinstance(case.body.get("taskId"), str):
        case.body["taskId"] = task_id
    if number % 2 and case.path.endswith("{task_id}"):
        attempt = (case.query or {}).get("attempt")
        case.query = {"token": sign_url(SECRET, task_id, attempt if isinstance(attempt, int) else None)}
        case.query |= {"attempt": attempt} if isinstance(attempt, int) else {}
    prepared = requests.Request(**without_options(case.as_transport_kwargs(base_url))).prepare()
    body = prepared.body or b""
    scheme = ("contenthub", "standard", "github")[number % 3]
    signed = sign_headers(
        scheme,
        body if isinstance(body, bytes) else body.encode(),
        SECRET,
        message_id=f"m{number}",
        timestamp=int(time.time()),
    )
    prepared.headers.update(signed)
    return prepared


def without_options(arguments: dict[str, Any]) -> dict[str, Any]:
    known = {"method", "url", "headers", "files", "data", "json", "params", "auth", "cookies"}
    return {name: value for name, value in arguments.items() if name in known}


@pytest.mark.parametrize("proof", ["with_a_proof", "without"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ROUTES, ids=range(len(ROUTES)))
def test_every_answer_is_one_of_the_contract(server: WebServer, route: str, kind: str, proof: str):
    path, method = route.split()
    base_url, statuses, numbers = server.gunicorn.base_url, Counter[int](), iter(range(10**9))
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method.upper()]
    if KINDS[kind] is GenerationMode.NEGATIVE and method == "get":
        pytest.skip("There is nothing to get wrong.")
    session = requests.Session()

    @settings(
        max_examples=CASES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=KINDS[kind]))
    def send(case: Any) -> None:
        number = next(numbers)
        if proof == "with_a_proof":
            prepared = believed(case, base_url, number)
        else:
            prepared = requests.Request(**without_options(case.as_transport_kwargs(base_url))).prepare()
        answer = session.send(prepared, timeout=30)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    send()
    figure(f"{route}, {kind}, {proof}: {dict(sorted(statuses.items()))}")
    assert sum(statuses.values()) > 0
    if (kind, proof) == ("as_described", "with_a_proof") and path.endswith("{task_id}"):
        assert statuses[200] > 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "LINK"])
@pytest.mark.parametrize(
    "path", ["callback/x", "callback", "callback/", "callbacks", "callbacks/x", "callbacks/x/y", "health", "health/x"]
)
def test_other_methods_and_paths_get_json(server: WebServer, path: str, method: str):
    answer = requests.request(method, f"{server.gunicorn.base_url}{PREFIX}/{path}", timeout=30)

    if (path, method) in {("health", "GET"), ("health", "HEAD")}:
        assert answer.status_code == 200
        return
    assert answer.status_code in {404, 405}
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Allow" in answer.headers) == (answer.status_code == 405)
    if method != "HEAD":
        code = {404: "route_not_found", 405: "method_not_allowed"}[answer.status_code]
        assert answer.json()["error"]["code"] == code
