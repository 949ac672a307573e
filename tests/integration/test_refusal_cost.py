"""A stranger's request costs little: a refusal stays within five times a plain one, whatever is in the body."""

from __future__ import annotations

import time

import pytest

from flask_contenthub_webhook.core.canonical import MAX_BYTES, MAX_VALUES
from flask_contenthub_webhook.core.signatures import CONTENTHUB_HEADER, GITHUB_HEADER
from tests.support.host import PREFIX, Host

WRONG = "0" * 64


def filled(unit: bytes, count: int) -> bytes:
    return b'{ "a":"' + unit * count + b'"}'


BODIES = {
    "text": filled(b"x", MAX_BYTES - 600),
    "quotes": filled(b'\\"', MAX_BYTES // 3 - 600),
    "control characters": filled(b"\x7f", MAX_BYTES // 6 - 600),
    "chinese": filled("键".encode(), MAX_BYTES // 3 - 600),
    "escapes": filled(b"\\u952e", MAX_BYTES // 7 - 600),
    "emoji": filled("🚀".encode(), MAX_BYTES // 12 - 600),
    "objects": b'{ "a":[' + b",".join(b'{"%d":0.1}' % number for number in range(MAX_VALUES // 2 - 20)) + b"]}",
    "names": b"{" + b",".join(b'"%d": 1e5' % number for number in range(MAX_VALUES - 40)) + b"}",
    "half of each": b"[" + filled(b"x", MAX_BYTES // 2 - 600) + b",0" * (MAX_VALUES // 2 - 20) + b"]",
    "1.4 MB of values": b"[" + b"0," * 700_000 + b"0]",
    "1.4 MB of text": filled(b"x", 1_400_000),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_signature_costs_at_most_five_times_a_plain_refusal(sqlite_host: Host, name: str):
    body, client = BODIES[name], sqlite_host.app.test_client()

    def refuse(headers: dict[str, str]) -> float:
        began = time.process_time()
        answer = client.post(f"{PREFIX}/callback/t", data=body, headers=headers, content_type="application/json")
        took = time.process_time() - began
        assert answer.status_code == 401
        return took

    def least(headers: dict[str, str]) -> float:
        return min(refuse(headers) for _ in range(15))

    plain, canonical = least({GITHUB_HEADER: f"sha256={WRONG}"}), least({CONTENTHUB_HEADER: WRONG})
    assert canonical < 5 * plain, f"{canonical * 1000:.2f} ms instead of {plain * 1000:.2f} ms"
