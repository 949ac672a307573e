"""The answers of a gateway in front of any service, as its creator's errors: the same as for content-creator."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

from flask_contenthub_webhook.creators import service_errors
from flask_contenthub_webhook.errors import CreatorAway, CreatorError, CreatorUnclear, CreatorUnreachable

PAGE = "<html><body>nginx</body></html>"


def answered(status: int, body: str, **headers: str) -> CreatorError:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, text=body, headers=fields, request=httpx.Request("GET", "https://api.example"))
    with pytest.raises(CreatorError) as raised, service_errors():
        response.raise_for_status().json()
    return raised.value


@pytest.mark.parametrize("status", [502, 504, 520, 522, 524, 500, 200])
def test_a_page_is_a_gateways(status):
    error = answered(status, PAGE)
    assert isinstance(error, CreatorAway)
    assert error.retry_after == 30


@pytest.mark.parametrize("status", [429, 503, 521, 523, 525, 530])
def test_what_was_not_delivered(status):
    error = answered(status, PAGE)
    assert isinstance(error, CreatorUnreachable)
    assert error.retry_after == 30


def test_a_retry_after_is_kept():
    assert answered(429, '{"error": "slow down"}', Retry_After="7").retry_after == 7
    assert answered(502, PAGE, Retry_After="90").retry_after == 90


def test_a_failure_in_the_services_own_words_says_nothing_of_a_gateway():
    error = answered(500, '{"error": "internal"}')
    assert isinstance(error, CreatorUnclear)
    assert not isinstance(error, CreatorAway)


def test_no_module_takes_its_name_whatever_is_imported_first():
    program = "from flask_contenthub_webhook.creators import UnknownJob, service_errors\nwith service_errors(): pass"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
