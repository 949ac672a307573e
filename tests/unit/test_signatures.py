"""Signing and verifying: tokens, the three body signatures, and the choice between them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from flask_contenthub_webhook.compat import (
    WebhookSignatureVerifier,
    create_verifier,
    generate_signature,
    verify_signature,
)
from flask_contenthub_webhook.core import signature_schemes
from flask_contenthub_webhook.core.signatures import (
    Credentials,
    Secret,
    Verified,
    generate_secret,
    sign_contenthub,
    sign_github,
    sign_headers,
    sign_standard,
    sign_url,
    verify,
    verify_contenthub,
    verify_url,
)
from flask_contenthub_webhook.errors import SignatureExpired, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = ("url", "contenthub", "standard", "github")
SECRET = "a secret of more than 32 characters, for tests"
OTHER = "another secret of more than 32 characters"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TIMESTAMP = int(NOW.timestamp())
TASK = "0d5b2f2e-5f0e-4f43-9d7b-2f6f4e5c8a11"
ANY_TEXT = st.text(st.characters())  # lone surrogates as well
BODY = '{"taskId":"T","event":"completed","result":{"content":"中文 😀"}}'.encode()


def check(
    headers: dict[str, str] | None = None,
    *,
    schemes: tuple[str, ...] = ALL,
    secrets: tuple[Secret, ...] = (SECRET,),
    now: datetime = NOW,
    **credentials: Any,
) -> Verified | None:
    credentials.setdefault("body", BODY)
    carried = Credentials(headers=Headers(headers or {}), **credentials)
    return verify(carried, schemes=schemes, secrets=secrets, tolerance=300, now=now)


def standard(
    signature: str | None = None, *, message_id: str = "msg_1", timestamp: str = str(TIMESTAMP), prefix: str = "webhook"
) -> dict[str, str]:
    if signature is None:
        signature = sign_standard(BODY, SECRET, message_id, int(timestamp))
    return {f"{prefix}-id": message_id, f"{prefix}-timestamp": timestamp, f"{prefix}-signature": signature}


# --- url -----------------------------------------------------------------------------------------------------


def test_a_token_is_43_characters_that_need_no_quoting():
    token = sign_url(SECRET, TASK, 1)
    assert len(base64.urlsafe_b64decode(token + "=")) == 32
    assert len(token) == 43


def test_a_token_does_not_change_between_releases():
    assert sign_url(SECRET, TASK, 1) == "3T7u0P9n4ClGuAtLIymHxu89TXAUrgmfOMDtG3GGBtI"


def test_a_token_proves_its_task_and_attempt():
    assert check(token=sign_url(SECRET, TASK, 1), task_id=TASK, attempt=1) == Verified("url")


def test_a_token_without_attempt_proves_a_url_without_attempt():
    assert check(token=sign_url(SECRET, TASK, None), task_id=TASK) == Verified("url")


@pytest.mark.parametrize(
    ("task_id", "attempt"),
    [(TASK, 2), (TASK, None), (TASK, 0), (TASK, -1), (TASK, 11), (TASK + "x", 1), (TASK.upper(), 1), ("", 1)],
)
def test_a_token_proves_no_other_task_and_no_other_attempt(task_id: str, attempt: int | None):
    with pytest.raises(SignatureInvalid, match="url: the token does not belong to this callback URL"):
        check(token=sign_url(SECRET, TASK, 1), task_id=task_id, attempt=attempt)


def test_a_token_without_attempt_proves_no_attempt():
    assert not verify_url(SECRET, TASK, 1, sign_url(SECRET, TASK, None))


@given(ANY_TEXT, st.none() | st.integers(), ANY_TEXT, st.none() | st.integers())
@example("\ud800", 1, "?", 1)
@example("1:x", None, "x", 1)
def test_two_urls_never_share_a_token(task: str, attempt: int | None, other: str, other_attempt: int | None):
    shared = sign_url(SECRET, task, attempt) == sign_url(SECRET, other, other_attempt)
    assert shared == ((task, attempt) == (other, other_attempt))


@pytest.mark.parametrize("task_id", ["\ud800", "\udfff:1", "中", "\x00", "x" * 100_000, "1:1"])
@pytest.mark.parametrize("attempt", [None, 1, 10**5000], ids=["none", "one", "huge"])
def test_any_task_id_and_attempt_can_be_signed_and_verified(task_id: str, attempt: int | None):
    assert verify_url(SECRET, task_id, attempt, sign_url(SECRET, task_id, attempt))


@pytest.mark.parametrize("change", ["{}=", "{}A", " {}", "{}\n", "{:.42}", ""])
def test_a_changed_token_is_refused(change: str):
    with pytest.raises(SignatureInvalid):
        check(token=change.format(sign_url(SECRET, TASK, 1)), task_id=TASK, attempt=1)


@pytest.mark.parametrize("label", [signature_schemes._URL_LABEL, b"1:" + TASK.encode()])
def test_nothing_that_is_signed_under_another_scheme_makes_a_token(label: bytes):
    digest = hmac.digest(SECRET.encode(), label, "sha256")
    as_token = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    as_key = base64.urlsafe_b64encode(hmac.digest(digest, b"1:" + TASK.encode(), "sha256")).rstrip(b"=").decode()
    assert sign_url(SECRET, TASK, 1) not in {as_token, as_key}


def test_a_token_signs_no_body():
    token = base64.urlsafe_b64decode(sign_url(SECRET, TASK, 1) + "=")
    assert not verify_contenthub(f"1:{TASK}".encode(), base64.b64encode(token).decode(), [SECRET])


# --- contenthub ----------------------------------------------------------------------------------------------


def test_a_contenthub_signature_is_the_base64_hmac_of_the_raw_body():
    digest = hmac.new(SECRET.encode(), BODY, hashlib.sha256).digest()
    assert sign_contenthub(BODY, SECRET) == base64.b64encode(digest).decode()


@pytest.mark.parametrize("prefix", ["", "sha256="])
@pytest.mark.parametrize("encode", [lambda d: base64.b64encode(d).decode(), bytes.hex, lambda d: d.hex().upper()])
def test_base64_and_hexadecimal_are_accepted_with_and_without_prefix(prefix: str, encode: Any):
    digest = hmac.digest(SECRET.encode(), BODY, "sha256")
    assert check({"X-Webhook-Signature": prefix + encode(digest)}) == Verified("contenthub")


@pytest.mark.parametrize(
    "signed",
    [
        b'{"a":8.0,"b":"\\u4e2d"}',
        '{"a":8.0,"b":"中"}'.encode(),
        '{"a":8.00,"b":"中"}'.encode(),
        '{ "b": "中", "a": 8.00 }'.encode(),
    ],
)
def test_the_raw_body_and_each_canonical_form_may_have_been_signed(signed: bytes):
    headers = {"X-Webhook-Signature": sign_contenthub(signed, SECRET)}
    assert check(headers, body='{ "b": "中", "a": 8.00 }'.encode()) == Verified("contenthub")


@pytest.mark.parametrize("body", [BODY + b" x", BODY.replace(b"completed", b"failed"), b"", b"\xff", b"null"])
def test_a_contenthub_signature_of_another_body_is_refused(body: bytes):
    with pytest.raises(SignatureInvalid, match="contenthub: X-Webhook-Signature does not match the body"):
        check({"X-Webhook-Signature": sign_contenthub(BODY, SECRET)}, body=body)


@pytest.mark.parametrize(
    "signature", ["", " ", "sha256=", "sha256", "ÿ" * 44, "A" * 42, "A" * 44, "A" * 10_000, "é" * 10_000, "0" * 63]
)
def test_a_malformed_contenthub_signature_is_refused(signature: str):
    with pytest.raises(SignatureInvalid, match="contenthub: X-Webhook-Signature is neither"):
        check({"X-Webhook-Signature": signature})


@pytest.mark.parametrize(
    ("signature", "secrets"),
    [
        ("not a signature", (SECRET,)),
        (sign_contenthub(BODY, SECRET), (SECRET,)),
        (sign_contenthub(b"", SECRET), ()),
        (sign_contenthub(BODY, OTHER), (SECRET, OTHER)),
    ],
    ids=["malformed", "raw body matches", "no secret", "raw body matches the second secret"],
)
def test_canonical_forms_are_not_made_where_they_cannot_help(
    monkeypatch: pytest.MonkeyPatch, signature: str, secrets: tuple[str, ...]
):
    def never(_: bytes) -> Iterator[bytes]:
        yield from map(pytest.fail, ["a canonical form was asked for"])

    monkeypatch.setattr(signature_schemes, "canonical_forms", never)
    with suppress(SignatureInvalid):
        check({"X-Webhook-Signature": signature}, secrets=secrets)


# --- standard ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "foreign"), [("webhook", "svix"), ("svix", "webhook")])
def test_a_right_set_counts_beside_a_foreign_one(right: str, foreign: str):
    theirs = standard(sign_standard(BODY, OTHER, "msg_9", TIMESTAMP), message_id="msg_9", prefix=foreign)

    assert check(standard(prefix=right) | theirs) == Verified("standard", "msg_1")
    assert check(standard(prefix=right) | {f"{foreign}-signature": "v1a,x"}) == Verified("standard", "msg_1")
    with pytest.raises(SignatureInvalid, match=r"webhook-signature does not match.*svix-signature does not match"):
        check(standard(prefix=right) | theirs, secrets=("a third secret",))


def test_an_expired_set_beside_a_foreign_one_is_told_as_expired():
    theirs = standard(sign_standard(BODY, OTHER, "msg_9", TIMESTAMP), message_id="msg_9")

    with pytest.raises(SignatureExpired, match="svix-timestamp"):
        check(theirs | standard(prefix="svix"), now=NOW + timedelta(hours=1))


@pytest.mark.parametrize("form", ["raw", "without whsec_", "decoded"])
@pytest.mark.parametrize("scheme", ["standard", "contenthub", "github"])
def test_a_refusal_says_that_another_form_of_the_secret_would_have_fitted(scheme: str, form: str):
    secret = generate_secret()
    text = secret.removeprefix("whsec_")
    key = {"raw": secret.encode(), "without whsec_": text.encode(), "decoded": base64.b64decode(text)}[form]
    headers = sign_headers(scheme, BODY, key, message_id="msg_1", timestamp=TIMESTAMP)
    if form == ("decoded" if scheme == "standard" else "raw"):
        assert check(headers, secrets=(secret,)) is not None
        return

    with pytest.raises(SignatureInvalid, match=r"another form of the secret: sign with") as caught:
        check(headers, secrets=(SECRET, secret))
    assert text not in caught.value.message
    with pytest.raises(SignatureInvalid) as foreign:
        check(headers, secrets=(SECRET,))
    assert "another form" not in foreign.value.message


@pytest.mark.parametrize("prefix", ["webhook", "svix"])
def test_a_standard_signature_proves_the_body_and_its_message_id(prefix: str):
    assert check(standard(prefix=prefix)) == Verified("standard", "msg_1")


def test_a_signature_in_the_list_is_enough():
    right = sign_standard(BODY, SECRET, "msg_1", TIMESTAMP)
    wrong = sign_standard(BODY, OTHER, "msg_1", TIMESTAMP)
    assert check(standard(f"v1a,AAAA v1 , {wrong} {right}")) == Verified("standard", "msg_1")


def test_only_the_first_16_signatures_are_tried():
    right = sign_standard(BODY, SECRET, "msg_1", TIMESTAMP)
    wrong = sign_standard(BODY, OTHER, "msg_1", TIMESTAMP)
    assert check(standard(" ".join([wrong] * 15 + [right])))
    with pytest.raises(SignatureInvalid):
        check(standard(" ".join([wrong] * 16 + [right])))


def test_a_signature_of_another_version_is_ignored():
    right = sign_standard(BODY, SECRET, "msg_1", TIMESTAMP).removeprefix("v1,")
    with pytest.raises(SignatureInvalid, match="standard: webhook-signature contains no v1 signature"):
        check(standard(f"v2,{right} v1a,{right} {right} v1;{right}"))


@pytest.mark.parametrize(
    "change",
    [{"webhook-id": "msg_2"}, {"webhook-timestamp": str(TIMESTAMP + 1)}, {"webhook-timestamp": f"0{TIMESTAMP}"}],
)
def test_the_id_and_the_timestamp_are_signed(change: dict[str, str]):
    with pytest.raises(SignatureInvalid, match="standard: webhook-signature does not match"):
        check(standard() | change)


@pytest.mark.parametrize("off", [-300, 300])
def test_a_timestamp_at_the_edge_of_the_tolerance_is_accepted(off: int):
    assert check(standard(), now=NOW + timedelta(seconds=off)) == Verified("standard", "msg_1")


@pytest.mark.parametrize(("off", "where"), [(-301, "301 s in the future; 300 s"), (301, "301 s in the past; 300 s")])
def test_a_right_signature_with_a_timestamp_too_far_off_has_expired(off: int, where: str):
    with pytest.raises(SignatureExpired, match=where):
        check(standard(), now=NOW + timedelta(seconds=off))


def test_a_wrong_signature_with_an_old_timestamp_is_invalid_and_not_expired():
    with pytest.raises(SignatureInvalid):
        check(standard(sign_standard(BODY, OTHER, "msg_1", TIMESTAMP)), now=NOW + timedelta(days=1))


@pytest.mark.parametrize("timestamp", ["", "x", "-1", "+1", "1.5", "1e9", " 1", "1_0", "١٢", "9" * 13, "9" * 10_000])
def test_a_timestamp_that_is_not_whole_seconds_is_refused(timestamp: str):
    with pytest.raises(SignatureInvalid, match="standard: webhook-timestamp is not whole seconds"):
        check(standard("v1,x", timestamp=timestamp))


@pytest.mark.parametrize("message_id", ["", "x" * 256, "é", "a\x00b", "a\tb", "\x7f"])
def test_a_message_id_that_is_long_or_not_printable_is_refused(message_id: str):
    with pytest.raises(SignatureInvalid, match="standard: webhook-id is not"):
        check(standard("v1,x", message_id=message_id))


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp"])
def test_a_standard_signature_without_its_id_or_timestamp_is_refused(missing: str):
    headers = standard()
    del headers[missing]
    with pytest.raises(SignatureInvalid, match=f"standard: {missing}"):
        check(headers)


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v1,!", "v1," + "A" * 10_000, "ÿ" * 10_000, "v1,AAAA " * 2000])
def test_a_malformed_standard_signature_is_refused(signature: str):
    with pytest.raises(SignatureInvalid, match="standard: webhook-signature contains no v1 signature"):
        check(standard(signature))


def test_the_two_header_families_are_not_mixed():
    headers = standard() | {"webhook-id": "", "svix-id": "msg_1"}
    with pytest.raises(SignatureInvalid):
        check(headers)


def test_a_secret_with_its_prefix_signs_with_its_decoded_bytes():
    key = bytes(range(32))
    secret = "whsec_" + base64.b64encode(key).decode()
    expected = base64.b64encode(hmac.digest(key, b"id.5.body", "sha256")).decode()
    assert sign_standard(b"body", secret, "id", 5) == f"v1,{expected}"
    assert sign_standard(b"body", secret.rstrip("="), "id", 5) == f"v1,{expected}"


def test_a_secret_without_prefix_signs_with_its_text():
    expected = base64.b64encode(hmac.digest(SECRET.encode(), b"id.5.body", "sha256")).decode()
    assert sign_standard(b"body", SECRET, "id", 5) == f"v1,{expected}"


def test_a_secret_without_prefix_verifies_by_its_text_and_by_its_decoded_bytes():
    key = bytes(range(32))
    plain = base64.b64encode(key).decode()
    for signer in (plain, f"whsec_{plain}", key):
        assert check(standard(sign_standard(BODY, signer, "msg_1", TIMESTAMP)), secrets=(plain,))


def test_a_secret_with_its_prefix_does_not_verify_by_its_text():
    secret = generate_secret()
    with pytest.raises(SignatureInvalid):
        check(standard(sign_standard(BODY, secret.encode(), "msg_1", TIMESTAMP)), secrets=(secret,))


@pytest.mark.parametrize("secret", ["", b"", "whsec_", "whsec_==", "whsec_abcd-_-_", "whsec_A", "whsec_é"])
def test_a_standard_secret_that_holds_no_key_does_not_sign_and_does_not_verify(secret: Secret):
    with pytest.raises(ValueError, match="secret is empty, or"):
        sign_standard(BODY, secret, "msg_1", TIMESTAMP)
    empty = "v1," + base64.b64encode(hmac.digest(b"", f"msg_1.{TIMESTAMP}.".encode() + BODY, "sha256")).decode()
    with pytest.raises(SignatureInvalid, match="secret"):
        check(standard(empty), secrets=(secret,))


# --- github --------------------------------------------------------------------------------------------------


def test_a_github_signature_is_the_example_of_githubs_documentation():
    assert sign_github(b"Hello, World!", "It's a Secret to Everybody") == (
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )


def test_a_github_signature_proves_the_body():
    assert check({"X-Hub-Signature-256": sign_github(BODY, SECRET)}) == Verified("github")


def test_a_github_signature_covers_the_raw_body_only():
    with pytest.raises(SignatureInvalid, match="github: X-Hub-Signature-256 does not match the body"):
        check({"X-Hub-Signature-256": sign_github(b'{"a":1}', SECRET)}, body=b'{ "a": 1 }')


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha1=" + "0" * 40, "sha1=" + "0" * 64, "0" * 64, "sha256=" + "é" * 64, "=" * 10_000]
)
def test_a_malformed_github_signature_is_refused(signature: str):
    with pytest.raises(SignatureInvalid, match="github: X-Hub-Signature-256 is not sha256="):
        check({"X-Hub-Signature-256": signature})


# --- choosing a scheme ---------------------------------------------------------------------------------------

SIGNED: dict[str, dict[str, str]] = {
    "contenthub": {"X-Webhook-Signature": sign_contenthub(BODY, SECRET)},
    "standard": standard(),
    "github": {"X-Hub-Signature-256": sign_github(BODY, SECRET)},
}
TOKEN = {"token": sign_url(SECRET, TASK, 1), "task_id": TASK, "attempt": 1}


def test_a_request_that_carries_nothing_is_not_verified_and_not_refused():
    assert check() is None
    assert check(secrets=()) is None
    assert check({"webhook-id": "msg_1", "webhook-timestamp": "1", "X-Hub-Signature": "sha1=x"}) is None


@pytest.mark.parametrize("scheme", SIGNED)
def test_what_belongs_to_a_scheme_that_is_not_in_use_is_not_looked_at(scheme: str):
    others = tuple(other for other in ALL if other != scheme)
    assert check(SIGNED[scheme], schemes=others) is None
    assert check(dict.fromkeys(SIGNED[scheme], ""), schemes=others) is None


def test_a_batch_is_checked_by_its_body_and_its_items_by_their_token():
    assert check(schemes=ALL[1:], **TOKEN) is None
    assert check(SIGNED["github"], schemes=ALL[1:], **TOKEN) == Verified("github")
    assert check(dict.fromkeys(SIGNED["github"], ""), schemes=("url",), **TOKEN) == Verified("url")


@pytest.mark.parametrize("first", SIGNED)
def test_the_first_scheme_in_the_order_given_wins(first: str):
    everything = {name: value for headers in SIGNED.values() for name, value in headers.items()}
    order = (first, *(scheme for scheme in ALL if scheme != first))
    proof = check(everything, schemes=order, **TOKEN)
    assert proof is not None
    assert proof.scheme == first


@pytest.mark.parametrize("right", SIGNED)
def test_one_right_signature_is_enough(right: str):
    wrong = {"X-Webhook-Signature": "", "webhook-signature": "", "X-Hub-Signature-256": ""}
    proof = check(wrong | SIGNED[right], token="wrong", task_id=TASK)
    assert proof is not None
    assert proof.scheme == right


def test_a_right_signature_of_another_scheme_outweighs_an_expired_one():
    late = NOW + timedelta(days=1)
    assert check(standard() | SIGNED["github"], now=late) == Verified("github")


def test_expired_is_told_before_invalid():
    with pytest.raises(SignatureExpired):
        check(standard() | {"X-Webhook-Signature": ""}, token="wrong", now=NOW + timedelta(days=1))


def test_the_refusal_names_every_scheme_that_was_tried_and_no_secret():
    with pytest.raises(SignatureInvalid) as refused:
        check({"X-Webhook-Signature": "", "X-Hub-Signature-256": ""}, token="wrong")
    message = refused.value.message
    assert [scheme for scheme in ALL if f"{scheme}:" in message] == ["url", "contenthub", "github"]
    assert SECRET not in message


@pytest.mark.parametrize("secrets", [(), ("",), ("", b"")])
@pytest.mark.parametrize("headers", [*SIGNED.values(), {"X-Webhook-Signature": ""}])
def test_a_signature_that_no_secret_can_check_is_refused(headers: dict[str, str], secrets: tuple[Secret, ...]):
    with pytest.raises(SignatureInvalid, match="no secret is configured to verify it"):
        check(headers, secrets=secrets)


def test_a_token_that_no_secret_can_check_is_refused():
    with pytest.raises(SignatureInvalid, match="no secret is configured to verify it"):
        check(secrets=(), **TOKEN)


@pytest.mark.parametrize("secrets", [(SECRET, OTHER), (OTHER, SECRET), ("", SECRET), (SECRET.encode(),)])
@pytest.mark.parametrize("scheme", ALL)
def test_every_secret_verifies(scheme: str, secrets: tuple[Secret, ...]):
    proof = check(SIGNED.get(scheme), schemes=(scheme,), secrets=secrets, **TOKEN)
    assert proof is not None
    assert proof.scheme == scheme


@pytest.mark.parametrize("scheme", ALL)
def test_a_secret_that_was_rotated_out_does_not_verify(scheme: str):
    with pytest.raises(SignatureInvalid):
        check(SIGNED.get(scheme), schemes=(scheme,), secrets=(OTHER,), **TOKEN)


@pytest.mark.parametrize("scheme", ALL)
def test_a_constant_time_comparison_decides(monkeypatch: pytest.MonkeyPatch, scheme: str):
    compared: list[tuple[bytes | str, bytes | str]] = []

    def differs(left: bytes | str, right: bytes | str) -> bool:
        compared.append((left, right))
        return False

    monkeypatch.setattr(hmac, "compare_digest", differs)
    with pytest.raises(SignatureInvalid):
        check(SIGNED.get(scheme), schemes=(scheme,), **TOKEN)
    assert any(left == right for left, right in compared)
    assert all(side.isascii() for pair in compared for side in pair if isinstance(side, str))  # other text would raise


def test_a_scheme_that_does_not_exist_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="'rot13' is not a signature scheme"):
        check(schemes=("rot13",))


def test_headers_may_be_a_plain_dict():
    carried = Credentials(headers=SIGNED["contenthub"], body=BODY)
    assert verify(carried, schemes=ALL, secrets=[SECRET], tolerance=300, now=NOW) == Verified("contenthub")


def test_credentials_do_not_show_what_is_secret():
    carried = Credentials(headers={"X-Webhook-Signature": "seal"}, body=b"words", token="ticket", task_id=TASK)
    assert TASK in repr(carried)
    assert not any(word in repr(carried) for word in ("seal", "words", "ticket"))


HEADER = st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: raw.decode("latin-1"))
PARTS = st.lists(st.sampled_from(["v1,", "sha256=", "A" * 43 + "=", "0" * 64, " ", ",", "=", "é", str(TIMESTAMP)]))
VALUE = st.none() | HEADER | PARTS.map("".join) | st.sampled_from([v for h in SIGNED.values() for v in h.values()])


@given(
    headers=st.fixed_dictionaries({name: VALUE for headers in SIGNED.values() for name in headers}),
    body=st.binary() | st.just(BODY),
    token=st.none() | ANY_TEXT,
    task_id=ANY_TEXT,
    attempt=st.none() | st.integers(),
    secrets=st.lists(st.sampled_from([SECRET, OTHER, "", "\ud800", "whsec_?", b"\x00"]), max_size=3),
)
def test_whatever_a_request_carries_it_is_verified_or_unsigned_or_refused(
    headers: dict[str, str | None], secrets: list[Secret], **credentials: Any
):
    present = {name: value for name, value in headers.items() if value is not None}
    carried = Credentials(headers=present, **credentials)
    try:
        proof = verify(carried, schemes=ALL, secrets=secrets, tolerance=300, now=NOW)
    except (SignatureInvalid, SignatureExpired):
        proof = None
    if proof is None or proof.scheme == "url":
        return
    genuine = SIGNED[proof.scheme]
    if (
        proof.scheme == "contenthub"
        and present["X-Webhook-Signature"].strip() == SIGNED["github"]["X-Hub-Signature-256"]
    ):
        return  # the same digest in hex, which is accepted there too
    assert {header: present[header].strip() for header in genuine} == genuine or credentials["body"] != BODY


# --- secrets -------------------------------------------------------------------------------------------------


def test_a_generated_secret_holds_32_fresh_bytes():
    secret = generate_secret()
    assert secret != generate_secret()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_secret_signs_nothing(empty: Secret):
    for sign in (
        lambda: sign_url(empty, TASK, 1),
        lambda: sign_contenthub(BODY, empty),
        lambda: sign_github(BODY, empty),
    ):
        with pytest.raises(ValueError, match="secret is empty"):
            sign()


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_secret_verifies_nothing(empty: Secret):
    assert not verify_url(empty, TASK, 1, sign_url(SECRET, TASK, 1))
    assert not verify_contenthub(BODY, base64.b64encode(hmac.digest(b"", BODY, "sha256")).decode(), [empty])


# --- the names of the original -------------------------------------------------------------------------------

PAYLOAD = {"taskId": "T", "event": "completed", "result": {"content": "中文", "wordCount": 2, "qualityScore": 8.0}}


def test_a_payload_is_signed_as_the_original_signs_it():
    message = (
        b'{"event":"completed","result":{"content":"\\u4e2d\\u6587","qualityScore":8.0,"wordCount":2},"taskId":"T"}'
    )
    assert (
        generate_signature(PAYLOAD, SECRET)
        == base64.b64encode(hmac.digest(SECRET.encode(), message, "sha256")).decode()
    )


@pytest.mark.parametrize("payload", [BODY, BODY.decode()])
def test_bytes_and_text_are_signed_as_they_stand(payload: bytes | str):
    assert generate_signature(payload, SECRET) == sign_contenthub(BODY, SECRET)


def test_a_signature_made_by_the_originals_names_is_accepted_from_a_request():
    assert check(
        {"X-Webhook-Signature": generate_signature(PAYLOAD, SECRET)}, body=str(PAYLOAD).replace("'", '"').encode()
    )


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode()])
def test_a_verifier_signs_and_verifies_with_its_secret(secret: Secret):
    verifier = create_verifier(secret)
    signature = verifier.generate_signature(PAYLOAD)
    assert isinstance(verifier, WebhookSignatureVerifier)
    assert verifier.verify_signature(PAYLOAD, signature)
    assert verifier.verify(PAYLOAD, f"sha256={signature}")
    assert not verifier.verify(PAYLOAD | {"event": "failed"}, signature)
    assert not create_verifier(OTHER).verify(PAYLOAD, signature)


CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("payload", "signature", "secret"),
    [
        (PAYLOAD, "", SECRET),
        (PAYLOAD, "é", SECRET),
        (PAYLOAD, None, SECRET),
        (PAYLOAD, 5, SECRET),
        (PAYLOAD, b"A" * 44, SECRET),
        (PAYLOAD, "A" * 43, ""),
        (PAYLOAD, "A" * 43, None),
        ({1, 2}, "A" * 43, SECRET),
        ({1: 1, "1": 2}, "A" * 43, SECRET),
        (PAYLOAD, "A" * 43, 5),
        (CIRCULAR, "A" * 43, SECRET),
        (DEEP, "A" * 43, SECRET),
        ("\ud800", "A" * 43, SECRET),
        (None, "A" * 43, SECRET),
        ({}, "A" * 43, SECRET),
    ],
)
def test_verify_signature_answers_false_and_never_raises(payload: Any, signature: Any, secret: Any):
    assert verify_signature(payload, signature, secret) is False
