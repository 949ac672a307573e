"""The table of signature schemes: each entry signs, verifies, and is complete."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

import pytest

from flask_contenthub_webhook.core.signatures import (
    SCHEMES,
    Credentials,
    generate_secret,
    sign_headers,
    sign_url,
    verify,
)
from flask_contenthub_webhook.errors import SignatureInvalid
from flask_contenthub_webhook.models.delivery import DeliveryMixin

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
SECRET, OTHER = generate_secret(), generate_secret()
BODY = b'{"event": "completed"}'


def signed(scheme: str) -> Credentials:
    headers = sign_headers(scheme, BODY, SECRET, message_id="msg_1", timestamp=int(NOW.timestamp()))
    token = sign_url(SECRET, "task", 1) if SCHEMES[scheme].authenticates == "url" else None
    return Credentials(headers=headers, body=BODY, token=token, task_id="task", attempt=1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_scheme_signs_it_verifies_alone_and_among_all(scheme: str):
    for schemes in ([scheme], list(SCHEMES)):
        proof = verify(signed(scheme), schemes=schemes, secrets=[SECRET], tolerance=300, now=NOW)
        assert proof is not None
        assert proof.scheme == scheme


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_secret_or_another_body_is_refused(scheme: str):
    with pytest.raises(SignatureInvalid, match=f"{scheme}: "):
        verify(signed(scheme), schemes=[scheme], secrets=[OTHER], tolerance=300, now=NOW)
    if SCHEMES[scheme].authenticates == "body":
        forged = Credentials(headers=signed(scheme).headers, body=BODY + b" ")
        with pytest.raises(SignatureInvalid, match=f"{scheme}: "):
            verify(forged, schemes=[scheme], secrets=[SECRET], tolerance=300, now=NOW)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_request_without_its_signature_is_none_of_its_business(scheme: str):
    assert verify(Credentials(body=BODY), schemes=[scheme], secrets=[SECRET], tolerance=300, now=NOW) is None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_entry_is_complete_and_its_name_fits_the_history(scheme: str):
    entry = SCHEMES[scheme]
    assert all(getattr(entry, field.name) or field.name == "headers" for field in fields(entry))
    assert len(scheme) <= vars(DeliveryMixin)["scheme"].column.type.length
    assert entry.accepts(generate_secret())
    assert bool(signed(scheme).headers) == (entry.authenticates == "body")


def test_an_unknown_scheme_neither_signs_nor_verifies():
    with pytest.raises(ValueError, match="'rsa' is not a signature scheme; known: url"):
        sign_headers("rsa", BODY, SECRET, message_id="msg_1", timestamp=0)
    with pytest.raises(ValueError, match="'rsa'"):
        verify(signed("github"), schemes=["rsa"], secrets=[SECRET], tolerance=300, now=NOW)
