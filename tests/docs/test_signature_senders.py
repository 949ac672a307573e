"""The senders on the page about signatures, run as they stand: python, node and bash against a real server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from docs.tables import contract
from flask_contenthub_webhook import generate_secret
from flask_contenthub_webhook.core.signatures import SCHEMES
from flask_contenthub_webhook.testing.live import LiveApp
from tests.support.host import PREFIX, Host, make_host
from tests.support.processes import PROJECT_ROOT, clean_environment

PAGE = (PROJECT_ROOT / "docs" / "signatures.md").read_text(encoding="utf-8")
SENDERS = re.findall(r"<!-- sender: (\w+) -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SECRET = generate_secret()
RUNNERS = {
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "--eval"],
    "bash": ["bash", "-euo", "pipefail", "-c"],
}
PROGRAMS = {"python": (sys.executable,), "javascript": ("node",), "bash": ("bash", "curl", "openssl")}


def senders(*, but: str = "") -> list[object]:
    """The programs on the page, under the names of their scheme and their language."""
    return [
        pytest.param(scheme, language, program, id=f"{scheme}-{language}")
        for scheme, language, program in SENDERS
        if scheme != but
    ]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """An application that requires signatures, of one secret."""
    folder: Path = tmp_path_factory.mktemp("senders")
    host = make_host(f"sqlite:///{folder / 'test.db'}", WEBHOOK_SECRET_KEY=SECRET)
    yield host
    host.close()


@pytest.fixture(scope="module")
def live(host: Host) -> Iterator[LiveApp]:
    with LiveApp(host.app) as live:
        yield live


def send(language: str, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a reader would, or skip the test where the machine has not got what it needs."""
    for needed in PROGRAMS[language]:
        if shutil.which(needed) is None:
            pytest.skip(f"needs {needed}")
    return subprocess.run(
        [*RUNNERS[language], program],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def callback_url(host: Host, live: LiveApp, task_id: str, scheme: str) -> str:
    """The task's URL; without its token, where a signature over the body is to be believed for its own sake."""
    if scheme != "url":
        return f"{live.base_url}{PREFIX}/callback/{task_id}"
    with host.app.app_context():
        return str(host.webhook.callback_url(task_id))


def assert_described(scheme: str, event: dict[str, Any], headers: Mapping[str, str]) -> None:
    """What was sent is in the contract: the event, and all parts of the proof."""
    document = contract()
    described = {"$ref": "#/components/schemas/Event", "components": document["components"]}
    jsonschema.validate(event, described, jsonschema.Draft202012Validator)
    (route,) = [routes["post"] for path, routes in document["paths"].items() if path.endswith("{task_id}")]
    proof = next(parts for parts in route["security"] if next(iter(parts)).startswith(scheme))
    places = [document["components"]["securitySchemes"][part] for part in proof]
    sent = {name.lower() for name in headers}
    assert {place["name"].lower() for place in places if place["in"] == "header"} <= sent
    assert (scheme == "url") == any(place["in"] == "query" for place in places)


def test_the_page_has_a_sender_for_every_scheme_in_every_language():
    assert [sender[:2] for sender in SENDERS] == [(scheme, language) for scheme in SCHEMES for language in RUNNERS]


@pytest.mark.parametrize(("scheme", "language", "program"), senders())
def test_what_the_page_sends_is_believed(host: Host, live: LiveApp, scheme: str, language: str, program: str):
    task_id = host.add_task()
    url = callback_url(host, live, task_id, scheme)

    sent = send(language, program, URL=url, SECRET=SECRET, TASK_ID=task_id)

    assert sent.returncode == 0, sent.stderr
    assert '"outcome":"processed"' in sent.stdout.replace(" ", "")
    (row,) = host.deliveries(task_id)
    assert (row.scheme, row.verdict) == (scheme, "processed")
    assert_described(scheme, json.loads(row.body), row.headers)
    assert host.contents(task_id) == ["# 茶"]


@pytest.mark.parametrize(("scheme", "language", "program"), senders(but="url"))
def test_what_the_page_sends_with_a_wrong_secret_is_refused_and_the_sender_knows_it(
    host: Host, live: LiveApp, scheme: str, language: str, program: str
):
    task_id = host.add_task()
    url = callback_url(host, live, task_id, scheme)

    sent = send(language, program, URL=url, SECRET=generate_secret(), TASK_ID=task_id)

    assert sent.returncode != 0
    assert "401" in sent.stderr
    assert host.task(task_id).status == "submitted"
    assert host.contents(task_id) == []
