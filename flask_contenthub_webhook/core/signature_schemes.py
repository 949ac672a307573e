"""The functions of the signature schemes, pure and over bytes; :mod:`.signatures` has the table of the schemes.

A secret is text or bytes. Comparisons run in constant time; no header value raises anything but a refusal.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeAlias

from ..errors import SignatureExpired, SignatureInvalid
from .canonical import canonical_forms
from .credentials import Credentials, Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

__all__ = [
    "CONTENTHUB_HEADER",
    "GITHUB_HEADER",
    "STANDARD_ID_HEADER",
    "STANDARD_SIGNATURE_HEADER",
    "STANDARD_TIMESTAMP_HEADER",
    "Secret",
    "check_contenthub",
    "check_github",
    "check_standard",
    "check_url",
    "generate_secret",
    "is_repetitive",
    "sign_contenthub",
    "sign_github",
    "sign_standard",
    "sign_url",
    "verify_contenthub",
    "verify_url",
]

Secret: TypeAlias = str | bytes

CONTENTHUB_HEADER = "X-Webhook-Signature"
GITHUB_HEADER = "X-Hub-Signature-256"
STANDARD_ID_HEADER = "webhook-id"
STANDARD_TIMESTAMP_HEADER = "webhook-timestamp"
STANDARD_SIGNATURE_HEADER = "webhook-signature"


# --- url -----------------------------------------------------------------------------------------------------

_URL_LABEL = b"flask_contenthub_webhook url token v1"
_URL_LENGTH = 43
"""Characters of base64 for 32 bytes, without the padding."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def sign_url(secret: Secret, task_id: str, attempt: int | None, sender: str | None = None) -> str:
    """Make the token of a callback URL, for senders that cannot sign.

    Args:
        secret: the secret; text is used as it is, including ``whsec_``.
        task_id: the task that the URL belongs to.
        attempt: the attempt in the URL; None if it has none.
        sender: the sender in the URL; None if it has none.

    Returns:
        43 URL-safe characters.

    Raises:
        ValueError: the secret is empty.
    """
    # The attempt has no slash, and neither of the two a colon. Hexadecimal, because decimal raises on huge numbers.
    numbered = "-" if attempt is None else f"{attempt:x}"
    named = numbered if sender is None else f"{numbered}/{sender.replace(':', '')}"
    token = _hmac(_url_key(secret), _utf8(f"{named}:{task_id}"))
    return binascii.b2a_base64(token)[:_URL_LENGTH].translate(_URL_SAFE).decode()


@lru_cache(maxsize=64)
def _url_key(secret: Secret) -> bytes:
    """Derive the key of tokens: the secret is the message here, so no text that a sender signs with it yields this."""
    return _hmac(_URL_LABEL, _key(secret))  # HKDF's extract step


def verify_url(secret: Secret, task_id: str, attempt: int | None, token: str, sender: str | None = None) -> bool:
    """Return True if :func:`sign_url` made this token for this task, attempt and sender. An empty secret makes none."""
    return bool(secret) and token.isascii() and hmac.compare_digest(sign_url(secret, task_id, attempt, sender), token)


def check_url(
    credentials: Credentials, secrets: Sequence[Secret], _tolerance: float, _now: datetime
) -> Verified | None:
    """Verify the token of the callback URL; see :class:`.signatures.Scheme`."""
    token = credentials.token
    if token is None:
        return None
    task_id, attempt, sender = credentials.task_id, credentials.attempt, credentials.sender
    for secret in secrets:
        if verify_url(secret, task_id, attempt, token, sender):
            return Verified("url")
    raise SignatureInvalid("url: the token does not belong to this callback URL.")


# --- contenthub ----------------------------------------------------------------------------------------------

_BASE64_SHA256 = re.compile(r"[A-Za-z0-9+/]{43}=?")
_HEX_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


def sign_contenthub(body: bytes, secret: Secret) -> str:
    """Make the value of ``X-Webhook-Signature``: the base64 of HMAC-SHA256 over the body.

    Raises:
        ValueError: the secret is empty.
    """
    return _b64(_hmac(_key(secret), body))


def verify_contenthub(body: bytes, signature: str, secrets: Sequence[Secret]) -> bool:
    """Return True if a secret signed the body, or, if it is JSON, a canonical form of it.

    Args:
        body: the raw bytes.
        signature: base64 or hexadecimal, after an optional ``sha256=``.
        secrets: the secrets; empty ones never match.
    """
    digest = _digest(signature)
    keys = [_key(secret) for secret in secrets if secret]
    if digest is None or not keys:
        return False
    messages = chain((body,), canonical_forms(body))
    return any(hmac.compare_digest(_hmac(key, message), digest) for message in messages for key in keys)


def check_contenthub(
    credentials: Credentials, secrets: Sequence[Secret], _tolerance: float, _now: datetime
) -> Verified | None:
    """Verify ``X-Webhook-Signature``; see :class:`.signatures.Scheme`."""
    signature = credentials.headers.get(CONTENTHUB_HEADER)
    if signature is None:
        return None
    if _digest(signature) is None:
        raise SignatureInvalid(f"contenthub: {CONTENTHUB_HEADER} is neither base64 nor hexadecimal of 32 bytes.")
    if verify_contenthub(credentials.body, signature, secrets):
        return Verified("contenthub")
    hint = _hint_at_form([_digest(signature) or b""], credentials.body, secrets, _text_keys, _AS_TEXT)
    raise SignatureInvalid(f"contenthub: {CONTENTHUB_HEADER} does not match the body.{hint}")


def _digest(signature: str) -> bytes | None:
    text = signature.strip().removeprefix("sha256=")
    if _HEX_SHA256.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64_SHA256.fullmatch(text):
        return _unb64(text)
    return None


# --- standard ------------------------------------------------------------------------------------------------

_WHSEC = "whsec_"
_MAX_SIGNATURES = 16
# An id may contain a dot: no other split of id.timestamp.body leaves a body that is a JSON object.
_MESSAGE_ID = re.compile(r"[ -~]{1,255}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def sign_standard(body: bytes, secret: Secret, message_id: str, timestamp: int) -> str:
    """Make the value of ``webhook-signature``, by Standard Webhooks v1.

    Args:
        body: the raw bytes.
        secret: the decoded bytes of ``whsec_`` and base64, or any other text or bytes as they are.
        message_id: the value of ``webhook-id``, the same for every resend.
        timestamp: the value of ``webhook-timestamp``, in whole seconds since 1970.

    Raises:
        ValueError: the secret is empty, or what follows its ``whsec_`` is not base64.
    """
    keys = _standard_keys(secret)
    if not keys:
        raise ValueError("The secret is empty, or what follows its whsec_ is not base64.")
    return f"v1,{_b64(_hmac(keys[0], _standard_message(message_id, str(timestamp), body)))}"


def check_standard(
    credentials: Credentials, secrets: Sequence[Secret], tolerance: float, now: datetime
) -> Verified | None:
    """Verify the headers of Standard Webhooks, or of Svix, whichever are right; see :class:`.signatures.Scheme`."""
    refusals: list[SignatureInvalid | SignatureExpired] = []
    for prefix in ("webhook", "svix"):
        if credentials.headers.get(f"{prefix}-signature") is None:
            continue
        try:
            return _check_standard_set(prefix, credentials, secrets, tolerance, now)
        except (SignatureInvalid, SignatureExpired) as refusal:
            refusals.append(refusal)
    if not refusals:
        return None
    for expired in refusals:
        if isinstance(expired, SignatureExpired):
            raise expired
    raise SignatureInvalid(" ".join(refusal.message for refusal in refusals))


def _check_standard_set(
    prefix: str, credentials: Credentials, secrets: Sequence[Secret], tolerance: float, now: datetime
) -> Verified:
    headers = credentials.headers
    signatures = headers.get(f"{prefix}-signature") or ""
    message_id, timestamp = headers.get(f"{prefix}-id") or "", headers.get(f"{prefix}-timestamp") or ""
    if not _MESSAGE_ID.fullmatch(message_id):
        raise SignatureInvalid(f"standard: {prefix}-id is not 1 to 255 printable ASCII characters.")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureInvalid(f"standard: {prefix}-timestamp is not whole seconds since 1970.")
    digests = list(islice(_standard_digests(signatures), _MAX_SIGNATURES))
    if not digests:
        raise SignatureInvalid(f"standard: {prefix}-signature contains no v1 signature.")
    message = _standard_message(message_id, timestamp, credentials.body)
    expected = [_hmac(key, message) for secret in secrets for key in _standard_keys(secret)]
    if not expected:
        raise SignatureInvalid("standard: no secret is usable; what follows whsec_ must be base64.")
    if not any(hmac.compare_digest(right, digest) for right in expected for digest in digests):
        hint = _hint_at_form(digests, message, secrets, _standard_keys, _DECODED)
        raise SignatureInvalid(f"standard: {prefix}-signature does not match the id, the timestamp and the body.{hint}")
    age = now.timestamp() - int(timestamp)
    if abs(age) > tolerance:
        direction = "past" if age > 0 else "future"
        raise SignatureExpired(
            f"standard: the signature is valid, but {prefix}-timestamp is {abs(age):.0f} s in the {direction}; "
            f"{tolerance:g} s are allowed."
        )
    return Verified("standard", message_id)


def generate_secret() -> str:
    """Make a secret that suits every scheme: ``whsec_`` and the base64 of 32 random bytes."""
    return _WHSEC + _b64(os.urandom(32))


def is_repetitive(secret: str) -> bool:
    """Return True if a secret, or a key that it stands for, is nothing but one character or byte repeated."""
    keys = (_utf8(secret.removeprefix(_WHSEC)), *_standard_keys(secret))
    return any(len(set(key)) == 1 for key in keys)


def _standard_message(message_id: str, timestamp: str, body: bytes) -> bytes:
    return _utf8(f"{message_id}.{timestamp}.") + body


def _standard_digests(signatures: str) -> Iterator[bytes]:
    for signature in signatures.split():
        version, _, text = signature.partition(",")
        if version == "v1" and _BASE64_SHA256.fullmatch(text):
            yield _unb64(text)


def _standard_keys(secret: Secret) -> tuple[bytes, ...]:
    """Return the keys that a secret may stand for; the first one signs."""
    if isinstance(secret, bytes):
        return (secret,) if secret else ()
    try:
        decoded = _unb64(secret.removeprefix(_WHSEC))
    except ValueError:
        decoded = b""
    # The packages standardwebhooks and svix decode every secret, those without the prefix too.
    keys = (decoded,) if secret.startswith(_WHSEC) else (_utf8(secret), decoded)
    return tuple(key for key in keys if key)


# --- github --------------------------------------------------------------------------------------------------


def sign_github(body: bytes, secret: Secret) -> str:
    """Make the value of ``X-Hub-Signature-256``: ``sha256=`` and the hexadecimal HMAC-SHA256 over the body.

    Raises:
        ValueError: the secret is empty.
    """
    return f"sha256={_hmac(_key(secret), body).hex()}"


def check_github(
    credentials: Credentials, secrets: Sequence[Secret], _tolerance: float, _now: datetime
) -> Verified | None:
    """Verify ``X-Hub-Signature-256``; see :class:`.signatures.Scheme`."""
    signature = credentials.headers.get(GITHUB_HEADER)
    if signature is None:
        return None
    algorithm, _, text = signature.partition("=")
    if algorithm != "sha256" or not _HEX_SHA256.fullmatch(text):
        raise SignatureInvalid(f"github: {GITHUB_HEADER} is not sha256= and 64 hexadecimal digits.")
    digest = bytes.fromhex(text)
    if any(hmac.compare_digest(_hmac(_key(secret), credentials.body), digest) for secret in secrets):
        return Verified("github")
    hint = _hint_at_form([digest], credentials.body, secrets, _text_keys, _AS_TEXT)
    raise SignatureInvalid(f"github: {GITHUB_HEADER} does not match the body.{hint}")


# --- hints ---------------------------------------------------------------------------------------------------

_AS_TEXT = "with its whole text, not decoded"
_DECODED = "with the bytes that the base64 after whsec_ stands for"


def _hint_at_form(
    digests: Sequence[bytes],
    message: bytes,
    secrets: Sequence[Secret],
    right: Callable[[Secret], Sequence[bytes]],
    advice: str,
) -> str:
    """Say so if a signature was made with a secret in another form than the scheme uses.

    Only a holder of the secret can learn anything from it.
    """
    for secret in secrets:
        if isinstance(secret, str):
            forms = {_utf8(secret), _utf8(secret.removeprefix(_WHSEC)), *_standard_keys(secret)} - {*right(secret), b""}
            if any(hmac.compare_digest(_hmac(form, message), digest) for form in forms for digest in digests):
                return f" It was made with another form of the secret: sign {advice}."
    return ""


def _text_keys(secret: Secret) -> tuple[bytes, ...]:
    return (_key(secret),)


# --- bytes ---------------------------------------------------------------------------------------------------


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _key(secret: Secret) -> bytes:
    if not secret:
        raise ValueError("The secret is empty; anyone could sign with an empty key.")
    return secret if isinstance(secret, bytes) else _utf8(secret)


def _utf8(text: str) -> bytes:
    # Text from outside may contain lone surrogates; they must not raise, and no two texts may become the same bytes.
    return text.encode("utf-8", "surrogatepass")


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unb64(text: str) -> bytes:
    """Decode base64, padded or not; raises ValueError on anything else."""
    text = text.rstrip("=")
    return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
