"""The errors: one base, a code and a status each, the docstring as message."""

from __future__ import annotations

import inspect

import pytest

from flask_contenthub_webhook import errors
from flask_contenthub_webhook.errors import DatabaseUnavailable, RateLimited, RequestRefused, WebhookError

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "InsecureConfiguration"]  # a warning
CONTRACT = {  # as in docs/http.md
    "webhook_disabled": 404,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "event_not_storable": 422,
    "address_not_allowed": 403,
    "client_certificate_required": 403,
    "rate_limited": 429,
    "signature_missing": 403,
    "signature_invalid": 401,
    "signature_expired": 401,
    "invalid_json": 400,
    "invalid_payload": 400,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "task_not_found": 404,
    "unknown_event": 400,
    "unknown_sender": 404,
    "task_mismatch": 409,
    "handler_failed": 500,
    "inbox_full": 503,
    "database_unavailable": 503,
    "event_unreadable": 503,
}


def test_the_refusals_are_those_of_the_http_contract():
    refusals = {
        cls.code: cls.status for cls in CLASSES if issubclass(cls, RequestRefused) and cls is not RequestRefused
    }

    assert refusals == CONTRACT


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_the_one_base_class(cls: type[WebhookError]):
    assert issubclass(cls, WebhookError)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_docstring_is_the_message(cls: type[WebhookError]):
    error = cls()

    assert error.message == str(error) == inspect.cleandoc(cls.__doc__ or "")
    assert error.message


@pytest.mark.parametrize("cls", CLASSES)
def test_a_message_of_ones_own_takes_its_place(cls: type[WebhookError]):
    assert cls("The moon is full.").message == "The moon is full."


def test_no_two_errors_share_a_code():
    codes = [cls.code for cls in CLASSES]

    assert len(set(codes)) == len(codes)


def test_every_error_of_the_module_is_exported():
    found = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, WebhookError)
    }

    assert found | {"InsecureConfiguration"} == set(errors.__all__)


@pytest.mark.parametrize("seconds", [-5, 0, 1])
def test_a_rate_limit_asks_for_at_least_a_second_of_patience(seconds: int):
    assert RateLimited(retry_after=seconds).retry_after == 1


def test_an_unavailable_database_says_when_to_come_again():
    assert DatabaseUnavailable().retry_after == 5
