"""Other people's signers and verifiers, in both directions: standardwebhooks, svix, and a real Node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks.webhooks
import svix.webhooks

from flask_contenthub_webhook.core.canonical import canonical_forms
from flask_contenthub_webhook.core.signatures import (
    CONTENTHUB_HEADER,
    SCHEMES,
    Credentials,
    Verified,
    generate_secret,
    sign_standard,
    verify,
    verify_contenthub,
)

BODY = '{"taskId":"T","event":"completed","result":{"content":"中文 😀","qualityScore":8.0}}'
ID = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="there is no `node` on this machine's PATH")
packages = pytest.mark.parametrize("package", [standardwebhooks.webhooks, svix.webhooks], ids=lambda p: p.__name__)
families = pytest.mark.parametrize("prefix", ["webhook", "svix"])


def secret_texts() -> list[str]:
    secret = generate_secret()
    return [secret, secret.removeprefix("whsec_"), secret.rstrip("=")]


@packages
@families
@pytest.mark.parametrize("secret", secret_texts(), ids=["whsec", "plain base64", "whsec without padding"])
def test_what_the_package_signs_verifies(package: Any, prefix: str, secret: str):
    now = datetime.now(UTC)
    headers = {
        f"{prefix}-id": ID,
        f"{prefix}-timestamp": str(int(now.timestamp())),
        f"{prefix}-signature": package.Webhook(secret).sign(ID, now, BODY),
    }
    proof = verify(
        Credentials(headers=headers, body=BODY.encode()), schemes=SCHEMES, secrets=[secret], tolerance=300, now=now
    )
    assert proof == Verified("standard", ID)


@packages
@pytest.mark.parametrize(
    "secret", [generate_secret(), b"some bytes", "whsec_" + "c2VjcmV0" * 4], ids=["generated", "bytes", "whsec"]
)
def test_what_we_sign_the_package_verifies(package: Any, secret: str | bytes):
    timestamp = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": ID,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign_standard(BODY.encode(), secret, ID, timestamp),
    }
    package.Webhook(secret).verify(BODY, headers)
    with pytest.raises(package.WebhookVerificationError):
        package.Webhook(secret).verify(BODY + " ", headers)


# --- Node ----------------------------------------------------------------------------------------------------

REBUILD = """
    const canonical = (value) =>
        Array.isArray(value) ? value.map(canonical)
        : value && typeof value === "object"
            ? Object.fromEntries(Object.keys(value).sort().map((key) => [key, canonical(value[key])]))
        : value;
    const stringify = (value) => JSON.stringify(canonical(value));
"""
WRITE_SORTED = """
    const stringify = (value) =>
        Array.isArray(value) ? `[${value.map(stringify).join(",")}]`
        : value && typeof value === "object"
            ? `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${stringify(value[key])}`).join(",")}}`
        : JSON.stringify(value);
"""
VALUES = {
    "numbers": "{z: 8.0, y: 1e21, x: 1e-7, w: -0, v: 0.1 + 0.2, u: 2 ** 53, t: 123456789012345680000, s: -1.5e300}",
    "chinese": '{"内容": "中文，标点。", "a": "变体"}',
    "emoji": r'{"\u{1f600}": 1, "\uffff": 2, "\ue000": 3, "z": "\u{1f468}\u200d\u{1f469}", "é": 4}',
    "array indexes": "{b: 1, 10: 1, 9: 1, 0: {2: 1, 1: 1}, '01': 1, '-1': 1, 4294967294: 1, 4294967295: 1, ' 1': 1}",
    "escapes": r'{"\u2028\u2029": "\u0000\u001f\u007f\u0080\b\f\n\r\t\"\\/", "a": "\ud800", "\udfff": "\ud83d"}',
    "shapes": "{c: [], b: {}, a: [null, true, false, '', [[{}]]], '': 0}",
    "a list": "[{b: 1, a: 2}, 3, 'x']",
    "text": "'plain'",
}


def node(program: str, *arguments: str) -> dict[str, str]:
    assert NODE is not None
    done = subprocess.run([NODE, "-e", program, "--", *arguments], capture_output=True, check=True, timeout=60)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


@needs_node
@pytest.mark.parametrize("stringify", [REBUILD, WRITE_SORTED], ids=["rebuilt objects", "keys written in order"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_the_canonical_json_that_node_makes_is_among_the_forms(stringify: str, value: str):
    made = node(
        f"{stringify} const value = {value};"
        'const hex = (text) => Buffer.from(text).toString("hex");'
        "console.log(JSON.stringify({sent: hex(JSON.stringify(value)), signed: hex(stringify(value))}));"
    )
    sent, signed = bytes.fromhex(made["sent"]), bytes.fromhex(made["signed"])
    assert signed in [sent, *canonical_forms(sent)]


@needs_node
@pytest.mark.parametrize("stringify", ["const stringify = JSON.stringify;", REBUILD, WRITE_SORTED])
@pytest.mark.parametrize("encoding", ["base64", "hex"])
def test_what_node_signs_verifies(stringify: str, encoding: str):
    made = node(
        f"""{stringify}
        const [secret, encoding] = process.argv.slice(1);
        const value = {{event: "completed", result: {{content: "中文 😀", 10: 8.0, 9: 1e21, a: 1e-7}}, data: null}};
        const signature = require("crypto").createHmac("sha256", secret).update(stringify(value)).digest(encoding);
        console.log(JSON.stringify({{sent: Buffer.from(JSON.stringify(value)).toString("base64"), signature}}));
        """,
        secret := "a secret with 中文 that is long enough",
        encoding,
    )
    carried = Credentials(headers={CONTENTHUB_HEADER: made["signature"]}, body=base64.b64decode(made["sent"]))
    proof = verify(carried, schemes=SCHEMES, secrets=[secret], tolerance=300, now=datetime.now(UTC))
    assert proof == Verified("contenthub")
    assert not verify_contenthub(carried.body + b"x", made["signature"], [secret])
