"""The guide's nginx, real: what it logs, what it passes on, and what it answers by itself."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trustme

from tests.support.nginx import NJS, PROGRAM, Nginx
from tests.support.processes import wait_until
from tests.support.raw_http import Answer, callback, completed, post, send
from tests.support.web_server import WebServer, serve

TOKEN = "token=v1.the-live-token-of-a-callback"
NAME = "creator.example.org"

pytestmark = pytest.mark.skipif(PROGRAM is None or NJS is None, reason="nginx with njs is not on this machine")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def web(sqlite_url: str, tmp_path: Path) -> Iterator[WebServer]:
    env = {
        "WEBHOOK_TRUSTED_PROXIES": "127.0.0.1",
        "WEBHOOK_CLIENT_CERTS": f"dns:{NAME}",
        "TEST_HOST_PROXY_FIX": "1",
    }
    with serve(sqlite_url, tmp_path, env=env, workers=1) as served:
        yield served


@pytest.fixture
def nginx(web: WebServer, authority: trustme.CA) -> Iterator[Nginx]:
    with Nginx(web.port, authority) as started:
        yield started


def context(authority: trustme.CA, certificate: trustme.LeafCert | None) -> Any:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    if certificate is not None:
        certificate.configure_cert(made)
    return lambda plain: made.wrap_socket(plain, server_hostname="127.0.0.1")


def ask(
    nginx: Nginx,
    web: WebServer,
    authority: trustme.CA,
    task_id: str,
    *,
    certificate: trustme.LeafCert | None = None,
    headers: dict[str, Any] | None = None,
    query: str = TOKEN,
) -> Answer:
    request = post(callback(task_id, query), completed(task_id), headers)
    return send(nginx.port, request, wrap=context(authority, certificate))


def logged(nginx: Nginx, text: str) -> None:
    """Wait for a line of the access log, which follows the answer."""
    wait_until(lambda: text in nginx.logs(), timeout=30, what=f"{text!r} was not logged", log=nginx.logs)


def refusals(web: WebServer) -> list[str]:
    with web.database.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT error FROM webhook_deliveries WHERE verdict = 'rejected'"))
        return [row.error for row in rows]


def test_the_token_is_in_no_log_while_gunicorn_is_away(nginx: Nginx, web: WebServer, authority: trustme.CA):
    task_id = web.database.add_task()
    web.gunicorn.stop()

    answer = ask(nginx, web, authority, task_id, certificate=authority.issue_cert(NAME))

    assert answer.status == 502
    logged(nginx, " 502 ")
    assert f"/callback/{task_id}" in nginx.logs()
    assert "token" not in nginx.logs()


def test_the_token_is_in_no_log_after_a_body_that_is_too_large(nginx: Nginx, web: WebServer, authority: trustme.CA):
    task_id = web.database.add_task()
    large = {"Content-Length": str(17 * 1024 * 1024)}

    answer = ask(nginx, web, authority, task_id, certificate=authority.issue_cert(NAME), headers=large)

    assert answer.status == 413
    logged(nginx, " 413 ")
    assert "token" not in nginx.logs()


def test_a_certificate_of_our_authority_is_passed_on(nginx: Nginx, web: WebServer, authority: trustme.CA):
    task_id = web.database.add_task()

    answer = ask(nginx, web, authority, task_id, certificate=authority.issue_cert(NAME), query="")

    assert (answer.status, answer.outcome) == (200, "processed")
    logged(nginx, 'certificate="SUCCESS"')


@pytest.mark.parametrize("kind", ["foreign", "expired", "none"])
def test_any_other_certificate_is_refused_by_the_app_and_counted(
    nginx: Nginx, web: WebServer, authority: trustme.CA, kind: str
):
    certificates = {
        "foreign": lambda: trustme.CA().issue_cert(NAME),
        "expired": lambda: authority.issue_cert(NAME, not_after=datetime.now(UTC) - timedelta(days=1)),
        "none": lambda: None,
    }
    task_id = web.database.add_task()

    answer = ask(nginx, web, authority, task_id, certificate=certificates[kind]())

    assert (answer.status, answer.code) == (403, "client_certificate_required")
    assert refusals(web) == ["client_certificate_required"]
    assert web.database.status(task_id) == "submitted"
    logged(nginx, f'certificate="{"NONE" if kind == "none" else "FAILED"}')


@pytest.mark.parametrize("certificates", [True, False])
def test_a_header_that_a_client_sends_is_dropped(web: WebServer, authority: trustme.CA, certificates: bool):
    der = ssl.PEM_cert_to_DER_cert(authority.issue_cert(NAME).cert_chain_pems[0].bytes().decode())
    forged = {"Client-Cert": f":{base64.b64encode(der).decode()}:"}
    task_id = web.database.add_task()

    with Nginx(web.port, authority, certificates=certificates) as nginx:
        answer = ask(nginx, web, authority, task_id, headers=forged)

    assert (answer.status, answer.code) == (403, "client_certificate_required")


def test_the_file_is_right_without_the_lines_about_certificates(authority: trustme.CA):
    nginx = Nginx(8000, authority, certificates=False)
    try:
        tested = nginx.test()
    finally:
        nginx.close()

    assert tested.returncode == 0, tested.stderr
