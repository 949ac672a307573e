"""The vectors against our own receiver, and against the libraries of others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import standardwebhooks.webhooks
import svix.webhooks

from flask_contenthub_webhook import generate_secret
from flask_contenthub_webhook.testing import LiveApp
from flask_contenthub_webhook.testing.conformance import FAMILIES, Vector, check_receiver, make_vectors
from tests.cli.conftest import run, run_json
from tests.support.host import PREFIX, Host
from tests.support.processes import PROJECT_ROOT

SECRET = generate_secret()
URL = f"http://hub.example{PREFIX}/callback/nobody"
PAGE = PROJECT_ROOT / "docs" / "conformance.md"
LIBRARIES = {"standardwebhooks": standardwebhooks.webhooks, "svix": svix.webhooks}


@pytest.fixture
def host(hosts: Callable[..., Host], sqlite_url: str) -> Host:
    return hosts(sqlite_url, WEBHOOK_SECRET_KEY=SECRET)


def post_to(host: Host) -> Callable[[str, bytes, Mapping[str, str]], int]:
    client = host.app.test_client()
    return lambda url, body, headers: client.post(url, data=body, headers=dict(headers)).status_code


def test_there_are_right_and_wrong_ones_of_every_scheme():
    vectors = make_vectors(SECRET)
    kinds = Counter((vector.family, vector.believed) for vector in vectors)

    assert len(vectors) >= 60
    assert set(kinds) == {(family, believed) for family in FAMILIES for believed in (True, False)}
    assert len({(vector.family, vector.name) for vector in vectors}) == len(vectors)
    assert all(vector.why.endswith(".") for vector in vectors)


def test_our_receiver_answers_each_as_it_must(host: Host, webhook_conformance: Callable[..., Any]):
    assert webhook_conformance(post_to(host), URL, SECRET) == []
    assert host.contents() == []


def test_a_receiver_that_believes_everything_is_found_out(webhook_conformance: Callable[..., Any]):
    wrong = [vector for vector in make_vectors(SECRET) if not vector.believed]

    differences = webhook_conformance(lambda _url, _body, _headers: 200, URL, SECRET)

    assert len(differences) == len(wrong)
    assert "but must be refused" in str(differences[0])


@pytest.mark.parametrize("status", [500, 503, None], ids=str)
def test_a_receiver_that_fails_conforms_to_nothing(status: int | None):
    vectors = make_vectors(SECRET)

    assert len(list(check_receiver(lambda _url, _body, _headers: status, URL, vectors))) == len(vectors)


def test_the_command_tells_by_its_exit_code(host: Host):
    with LiveApp(host.app) as live:
        url = f"{live.base_url}{PREFIX}/callback/nobody"
        right = run(host, "conform", url, "--secret", SECRET)
        wrong = run_json(host, "conform", url, "--secret", generate_secret(), "--scheme", "github")

    assert (right.exit_code, right.stdout) == (0, f"{len(make_vectors(SECRET))} vectors, 0 differences.\n")
    assert {each["must_be"] for each in wrong["differences"]} == {"believed"}
    assert {each["status"] for each in wrong["differences"]} == {401}


# --- libraries ---------------------------------------------------------------------------------------------------


def believes(library: Any, vector: Vector) -> bool:
    try:
        library.Webhook(SECRET).verify(vector.body, vector.headers)
    except library.WebhookVerificationError:
        return False
    except Exception:  # noqa: BLE001 - whatever it raises, it does not believe it
        return False
    return True


def differing() -> dict[tuple[str, str], set[str]]:
    """The vectors about which a library says something else, of those that it can read, and which libraries do."""
    found: dict[tuple[str, str], set[str]] = {}
    for name, library in LIBRARIES.items():
        for family in ("standard", "svix"):
            vectors = make_vectors(SECRET, families=[family])
            if not believes(library, vectors[0]):
                continue  # it does not know these headers
            for vector in vectors:
                if believes(library, vector) is not vector.believed:
                    found.setdefault((family, vector.name), set()).add(name)
    return found


def test_the_page_says_who_differs():
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (standard|svix) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)

    assert {(family, name.strip()): set(re.findall(r"`(\w+)`", who)) for family, name, who in rows} == differing()


def test_the_libraries_agree_about_most():
    assert believes(LIBRARIES["standardwebhooks"], make_vectors(SECRET, families=["standard"])[0])
    assert believes(LIBRARIES["svix"], make_vectors(SECRET, families=["svix"])[0])
