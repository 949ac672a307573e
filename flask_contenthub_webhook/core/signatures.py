"""The table of signature schemes, and verification and signing by it.

If there are several secrets (rotation), the first one signs and all of them verify.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from ..errors import SignatureExpired, SignatureInvalid
from .credentials import Credentials, Headers, Verified
from .signature_schemes import (
    CONTENTHUB_HEADER,
    GITHUB_HEADER,
    STANDARD_ID_HEADER,
    STANDARD_SIGNATURE_HEADER,
    STANDARD_TIMESTAMP_HEADER,
    Secret,
    check_contenthub,
    check_github,
    check_standard,
    check_url,
    generate_secret,
    sign_contenthub,
    sign_github,
    sign_standard,
    sign_url,
    verify_contenthub,
    verify_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "CONTENTHUB_HEADER",
    "GITHUB_HEADER",
    "SCHEMES",
    "STANDARD_ID_HEADER",
    "STANDARD_SIGNATURE_HEADER",
    "STANDARD_TIMESTAMP_HEADER",
    "Credentials",
    "Headers",
    "Scheme",
    "Secret",
    "Verified",
    "carries_signature",
    "generate_secret",
    "scheme_named",
    "sign_contenthub",
    "sign_github",
    "sign_headers",
    "sign_standard",
    "sign_url",
    "verify",
    "verify_contenthub",
    "verify_url",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A signature scheme.

    Args:
        authenticates: ``body``, or ``url`` for the task and the attempt that the callback URL names.
        reads: where the signature is in a request, for the documentation.
        used_by: its senders, for the documentation.
        check: verifies a request, given the secrets, the tolerance in seconds and the time; returns None if the request
            carries nothing of this scheme, and raises SignatureInvalid or SignatureExpired. An empty value is wrong.
        sign: returns the headers that sign a body, given the secret, the message id and the timestamp; raises
            ValueError if it cannot use the secret.
        key_form: the secrets that it can use, for messages.
        headers: the names of the headers that carry it.
    """

    authenticates: Literal["body", "url"]
    reads: str
    used_by: str
    check: Callable[[Credentials, Sequence[Secret], float, datetime], Verified | None]
    sign: Callable[[bytes, Secret, str, int], dict[str, str]]
    key_form: str = "any text"
    headers: tuple[str, ...] = ()

    def accepts(self, secret: Secret) -> bool:
        """Return True if the scheme can sign with the secret."""
        try:
            self.sign(b"", secret, "", 0)
        except ValueError:
            return False
        return True


SCHEMES: Mapping[str, Scheme] = {
    "url": Scheme(
        authenticates="url",
        reads="`?token=` in the callback URL",
        used_by="senders that cannot sign, such as the real content-creator service",
        check=check_url,
        sign=lambda _body, _secret, _message_id, _timestamp: {},
    ),
    "contenthub": Scheme(
        authenticates="body",
        reads=f"`{CONTENTHUB_HEADER}`",
        used_by="senders of the original ContentHub",
        check=check_contenthub,
        sign=lambda body, secret, _message_id, _timestamp: {CONTENTHUB_HEADER: sign_contenthub(body, secret)},
        headers=(CONTENTHUB_HEADER,),
    ),
    "standard": Scheme(
        authenticates="body",
        reads=f"`{STANDARD_ID_HEADER}`, `{STANDARD_TIMESTAMP_HEADER}`, `{STANDARD_SIGNATURE_HEADER}` (also `svix-*`)",
        used_by="Standard Webhooks: Svix and others, with our events in them",
        check=check_standard,
        sign=lambda body, secret, message_id, timestamp: {
            STANDARD_ID_HEADER: message_id,
            STANDARD_TIMESTAMP_HEADER: str(timestamp),
            STANDARD_SIGNATURE_HEADER: sign_standard(body, secret, message_id, timestamp),
        },
        key_form="base64 after whsec_, or text that does not begin with whsec_",
        headers=(STANDARD_ID_HEADER, STANDARD_TIMESTAMP_HEADER, STANDARD_SIGNATURE_HEADER),
    ),
    "github": Scheme(
        authenticates="body",
        reads=f"`{GITHUB_HEADER}`",
        used_by="GitHub and many others",
        check=check_github,
        sign=lambda body, secret, _message_id, _timestamp: {GITHUB_HEADER: sign_github(body, secret)},
        headers=(GITHUB_HEADER,),
    ),
}
"""The schemes by name, in the order in which they are tried by default.

Verification, WEBHOOK_SIGNATURE_SCHEMES, ``flask webhook send``, the doctor, :mod:`flask_contenthub_webhook.testing`,
the table in docs/signatures.md and the tests read it, so adding a scheme means adding an entry.
"""


_EPOCH = datetime.fromtimestamp(0, UTC)


def verify(
    credentials: Credentials,
    *,
    schemes: Iterable[str],
    secrets: Sequence[Secret],
    tolerance: float,
    now: datetime,
) -> Verified | None:
    """Verify a request by the first scheme with a valid signature.

    Schemes of which the request carries nothing are skipped, and signatures of schemes not given are ignored. So a
    batch can be verified by its body (every scheme but ``url``) and then item by item (``url`` alone).

    Args:
        credentials: the request's credentials.
        schemes: names in :data:`SCHEMES`, in the order in which they are tried.
        secrets: each may have signed; empty ones are ignored.
        tolerance: seconds by which a signed timestamp may differ from ``now``, either way.
        now: the current time, aware.

    Returns:
        The proof, or None if the request carries no signature; the caller decides whether that is allowed.

    Raises:
        SignatureExpired: no signature is valid, but one is only too far from ``now``.
        SignatureInvalid: no signature is valid, or there is no secret to verify them.
    """
    usable = [secret for secret in secrets if secret]
    refusals: list[SignatureInvalid | SignatureExpired] = []
    for scheme in schemes:
        try:
            verified = scheme_named(scheme).check(credentials, usable, tolerance, now)
        except (SignatureInvalid, SignatureExpired) as refusal:
            refusals.append(refusal)
        else:
            if verified is not None:
                return verified
    if not refusals:
        return None
    if not usable:
        raise SignatureInvalid("The request is signed, but no secret is configured to verify it.")
    for expired in refusals:
        if isinstance(expired, SignatureExpired):
            raise expired
    raise SignatureInvalid(" ".join(refusal.message for refusal in refusals))


def carries_signature(credentials: Credentials, schemes: Iterable[str]) -> bool:
    """Return True if a request carries anything of one of the schemes, right or wrong; no body is needed to tell."""
    for scheme in schemes:
        try:
            if scheme_named(scheme).check(credentials, (), 0, _EPOCH) is not None:
                return True
        except SignatureInvalid:  # without a secret nothing is valid
            return True
    return False


def sign_headers(scheme: str, body: bytes, secret: Secret, *, message_id: str, timestamp: int) -> dict[str, str]:
    """Return the headers that sign a body; none for a scheme that signs the URL.

    Args:
        scheme: a name in :data:`SCHEMES`.
        body: the raw bytes.
        secret: the secret.
        message_id: id of the message, for schemes that sign one.
        timestamp: time in whole seconds since 1970, for schemes that sign it.

    Raises:
        ValueError: the scheme is unknown, or cannot use the secret.
    """
    return scheme_named(scheme).sign(body, secret, message_id, timestamp)


def scheme_named(name: str) -> Scheme:
    """Return a scheme.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        return SCHEMES[name]
    except KeyError:
        raise ValueError(f"{name!r} is not a signature scheme; known: {', '.join(SCHEMES)}.") from None
