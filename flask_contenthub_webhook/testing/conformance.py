"""Test vectors of every signature scheme: requests, right and wrong, with the answer that each must get and why.

They hold for any receiver of the schemes, and for libraries that verify them. A vector proves who sent it or does not;
what the receiver makes of the event is not looked at, so that it may be about a task that does not exist.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit, urlunsplit

from ..core.signatures import CONTENTHUB_HEADER, GITHUB_HEADER, sign_standard, sign_url

__all__ = ["FAMILIES", "Difference", "Post", "Vector", "check_receiver", "make_vectors", "verdict_of"]

FAMILIES = ("url", "contenthub", "standard", "svix", "github")
"""The schemes, and ``svix``, which is ``standard`` under other names of headers."""

_OTHER_SECRET = "whsec_" + base64.b64encode(b"somebody else's secret, 32 bytes").decode()


@dataclass(frozen=True, slots=True)
class Vector:
    """A request that a receiver must believe, or refuse.

    Args:
        family: one of :data:`FAMILIES`.
        name: what is special about it.
        believed: True if its proof is right.
        why: the reason for the answer.
        headers: those of the proof.
        body: the raw bytes.
        query: what is added to the URL, such as ``attempt=1&token=...``.
    """

    family: str
    name: str
    believed: bool
    why: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    query: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Difference:
    """A vector that a receiver answered otherwise.

    Args:
        vector: the request.
        status: the HTTP status of the answer; None if there was none.
    """

    vector: Vector
    status: int | None

    def __str__(self) -> str:
        wanted = "believed" if self.vector.believed else "refused"
        answered = "no answer" if self.status is None else f"HTTP {self.status}"
        return f"{self.vector.family}, {self.vector.name}: {answered}, but must be {wanted}. {self.vector.why}"


Post = Callable[[str, bytes, Mapping[str, str]], int | None]


def check_receiver(post: Post, url: str, vectors: Iterable[Vector]) -> Iterator[Difference]:
    """Send vectors to a receiver, and yield those that it answers otherwise.

    Args:
        post: sends a body with headers to a URL; returns the HTTP status, or None if there is no answer.
        url: the receiver's, that the vectors were made for.
        vectors: see :func:`make_vectors`.
    """
    for vector in vectors:
        address = urlsplit(url)
        query = "&".join(part for part in (address.query, vector.query) if part)
        headers = {"Content-Type": "application/json", **vector.headers}
        status = post(urlunsplit(address._replace(query=query)), vector.body, headers)
        if status is None or verdict_of(status) is not vector.believed:
            yield Difference(vector, status)


def verdict_of(status: int) -> bool | None:
    """Tell from an HTTP status whether a request was believed; None if the receiver itself failed.

    400, 401 and 403 refuse the sender. 405, 413, 415 and 429 come before anybody looks who it is, and tell nothing. Any
    other 4xx, such as 404 for an unknown task, comes after it was believed.
    """
    if not 200 <= status < 500 or status in {405, 408, 413, 415, 429}:  # noqa: PLR2004
        return None
    return status not in {400, 401, 403}


def make_vectors(
    secret: str,
    *,
    url: str = "https://receiver.example/callback/task",
    now: datetime | None = None,
    families: Collection[str] = FAMILIES,
) -> list[Vector]:
    """Return the vectors for a receiver.

    Args:
        secret: the receiver's; for ``standard`` and ``svix`` the base64 after ``whsec_`` is the key.
        url: where they are sent; its last segment is the task.
        now: the time that they are signed with; by default the present.
        families: which of :data:`FAMILIES`.
    """
    at = int((datetime.now(UTC) if now is None else now).timestamp())
    task_id = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    body = json.dumps(
        {"event": "completed", "taskId": task_id, "result": {"content": "# 茶 / tea"}}, ensure_ascii=False
    ).encode()
    makers: dict[str, Callable[[], Iterable[Vector]]] = {
        "url": lambda: _of_url(secret, task_id, body),
        "contenthub": lambda: _of_contenthub(secret, body),
        "standard": lambda: _of_standard("standard", "webhook", secret, body, at),
        "svix": lambda: _of_standard("svix", "svix", secret, body, at),
        "github": lambda: _of_github(secret, body),
    }
    return [vector for family in FAMILIES if family in families for vector in makers[family]()]


# --- url -----------------------------------------------------------------------------------------------------


def _of_url(secret: str, task_id: str, body: bytes) -> Iterator[Vector]:
    token = sign_url(secret, task_id, 1)

    def vector(name: str, query: str, why: str, *, believed: bool = False) -> Vector:
        return Vector("url", name, believed, why, {}, body, query)

    yield vector("right", f"attempt=1&token={token}", "The token is of this task and this attempt.", believed=True)
    yield vector("right, the other order", f"token={token}&attempt=1", "A query has no order.", believed=True)
    yield vector("right, another parameter", f"attempt=1&token={token}&trace=7", "Others are not ours.", believed=True)
    any_attempt = sign_url(secret, task_id, None)
    yield vector("right, no attempt", f"token={any_attempt}", "It is of the task, at any attempt.", believed=True)
    yield vector("another attempt", f"attempt=2&token={token}", "The token is of attempt 1.")
    yield vector("no attempt", f"token={token}", "The token is of attempt 1 alone.")
    yield vector("another task", f"attempt=1&token={sign_url(secret, task_id + 'x', 1)}", "It is of another task.")
    yield vector("another secret", f"attempt=1&token={sign_url(_OTHER_SECRET, task_id, 1)}", "Nobody has that secret.")
    yield vector("cut", f"attempt=1&token={token[:-1]}", "The last character is missing.")
    yield vector("longer", f"attempt=1&token={token}A", "A character too many.")
    yield vector("other case", f"attempt=1&token={token.swapcase()}", "Base64 tells cases apart.")
    yield vector("empty", "attempt=1&token=", "An empty token proves nothing.")
    yield vector("missing", "attempt=1", "There is no proof at all.")


# --- contenthub and github -----------------------------------------------------------------------------------


def _digest(key: bytes, message: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.digest(key, message, algorithm)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _of_contenthub(secret: str, body: bytes) -> Iterator[Vector]:
    key = secret.encode()
    right = _digest(key, body)
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    escaped = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()

    def vector(name: str, value: str, why: str, *, believed: bool = False, header: str = CONTENTHUB_HEADER) -> Vector:
        return Vector("contenthub", name, believed, why, {header: value}, body)

    yield vector("base64", _b64(right), "The usual form.", believed=True)
    yield vector("base64 without padding", _b64(right).rstrip("="), "Some languages leave it out.", believed=True)
    yield vector("hexadecimal", right.hex(), "As the original accepts it.", believed=True)
    yield vector("hexadecimal in capitals", right.hex().upper(), "Hexadecimal has no case.", believed=True)
    yield vector("with sha256=", f"sha256={_b64(right)}", "As the original accepts it.", believed=True)
    yield vector("hexadecimal with sha256=", f"sha256={right.hex()}", "As the original accepts it.", believed=True)
    yield vector(
        "header in small letters", _b64(right), "Headers have no case.", believed=True, header=CONTENTHUB_HEADER.lower()
    )
    yield vector("sorted JSON", _b64(_digest(key, canonical)), "The original signs that.", believed=True)
    yield vector("sorted JSON in ASCII", _b64(_digest(key, escaped)), "So does its Python sender.", believed=True)
    yield vector("another secret", _b64(_digest(_OTHER_SECRET.encode(), body)), "Nobody has that secret.")
    yield vector("another body", _b64(_digest(key, body + b" ")), "It signs a blank that was not sent.")
    yield vector("no body", _b64(_digest(key, b"")), "It signs nothing.")
    yield vector("SHA-1", _b64(_digest(key, body, "sha1")), "That is another algorithm.")
    yield vector("SHA-512", _b64(_digest(key, body, "sha512")), "That is another algorithm.")
    yield vector("no key", _b64(_digest(b"", body)), "Anybody could sign with an empty key.")
    yield vector("cut", _b64(right)[:-4], "Its end is missing.")
    yield vector("twice", f"{_b64(right)},{_b64(right)}", "Two signatures are none.")
    yield vector("prefix twice", f"sha256=sha256={right.hex()}", "It is no signature.")
    yield vector("sha1= before it", f"sha1={right.hex()}", "That is another algorithm.")
    yield vector("empty", "", "An empty signature proves nothing.")
    yield vector("a word", "null", "It is no signature.")


def _of_github(secret: str, body: bytes) -> Iterator[Vector]:
    key = secret.encode()
    right = _digest(key, body).hex()

    def vector(name: str, value: str, why: str, *, believed: bool = False, header: str = GITHUB_HEADER) -> Vector:
        return Vector("github", name, believed, why, {header: value}, body)

    yield vector("right", f"sha256={right}", "As GitHub sends it.", believed=True)
    yield vector("capitals", f"sha256={right.upper()}", "Hexadecimal has no case.", believed=True)
    yield vector(
        "header in small letters",
        f"sha256={right}",
        "Headers have no case.",
        believed=True,
        header=GITHUB_HEADER.lower(),
    )
    yield vector("no prefix", right, "The algorithm is not named.")
    yield vector("sha1=", f"sha1={_digest(key, body, 'sha1').hex()}", "That is another algorithm.")
    yield vector("sha1= before it", f"sha1={right}", "That is another algorithm.")
    yield vector("base64", f"sha256={_b64(_digest(key, body))}", "It must be hexadecimal.")
    yield vector("another secret", f"sha256={_digest(_OTHER_SECRET.encode(), body).hex()}", "Nobody has that secret.")
    yield vector("another body", f"sha256={_digest(key, body + b' ').hex()}", "It signs a blank that was not sent.")
    yield vector("cut", f"sha256={right[:-2]}", "Its end is missing.")
    yield vector("longer", f"sha256={right}00", "A byte too many.")
    yield vector("prefix alone", "sha256=", "It is no signature.")
    yield vector("empty", "", "An empty signature proves nothing.")


# --- Standard Webhooks ---------------------------------------------------------------------------------------


def _of_standard(family: str, prefix: str, secret: str, body: bytes, at: int) -> Iterator[Vector]:
    ours = "msg_conformance"

    def sign(message_id: str = ours, timestamp: int = at, signed: bytes = body, by: str = secret) -> str:
        return sign_standard(signed, by, message_id, timestamp)

    def vector(
        name: str,
        signature: str | None,
        why: str,
        *,
        believed: bool = False,
        message_id: str | None = ours,
        timestamp: str | None = str(at),
    ) -> Vector:
        parts = {"id": message_id, "timestamp": timestamp, "signature": signature}
        headers = {f"{prefix}-{part}": value for part, value in parts.items() if value is not None}
        return Vector(family, name, believed, why, headers, body)

    wrong = sign(by=_OTHER_SECRET)
    yield vector("right", sign(), "The usual form.", believed=True)
    yield vector("a wrong one first", f"{wrong} {sign()}", "One right signature is enough: rotation.", believed=True)
    yield vector("a wrong one last", f"{sign()} {wrong}", "One right signature is enough: rotation.", believed=True)
    yield vector("v1a beside it", f"v1a,{_b64(b'x' * 64)} {sign()}", "Other versions are passed over.", believed=True)
    yield vector("4 minutes old", sign(timestamp=at - 240), "Within 5 minutes.", believed=True, timestamp=str(at - 240))
    yield vector("4 minutes ahead", sign(timestamp=at + 240), "Clocks differ.", believed=True, timestamp=str(at + 240))
    yield vector("an id with a dot", sign("msg.1"), "It is a part of the id.", believed=True, message_id="msg.1")
    yield vector("6 minutes old", sign(timestamp=at - 360), "A recorded request.", timestamp=str(at - 360))
    yield vector("6 minutes ahead", sign(timestamp=at + 360), "Made for later use.", timestamp=str(at + 360))
    yield vector("another time", sign(), "The time is signed.", timestamp=str(at - 1))
    yield vector("another id", sign(), "The id is signed.", message_id="msg_other")
    yield vector("another body", sign(signed=body + b" "), "It signs a blank that was not sent.")
    yield vector("another secret", wrong, "Nobody has that secret.")
    yield vector("16 wrong ones", " ".join([wrong] * 16), "Many wrong ones are wrong.")
    yield vector("the right one after 16 wrong ones", " ".join([*[wrong] * 16, sign()]), "No rotation needs so many.")
    yield vector("no id", sign(), "The id is signed.", message_id=None)
    yield vector("an empty id", sign(""), "A message needs an id.", message_id="")
    yield vector("no time", sign(), "The time is signed.", timestamp=None)
    yield vector("time is a word", sign(), "It is no time.", timestamp="now")
    yield vector("time with a fraction", sign(), "It is whole seconds.", timestamp=f"{at}.0")
    yield vector("time with a sign", sign(), "It is digits.", timestamp=f"+{at}")
    yield vector("time in milliseconds", sign(timestamp=at * 1000), "It is seconds.", timestamp=str(at * 1000))
    yield vector("no version", sign().removeprefix("v1,"), "The version is not named.")
    yield vector("v2", sign().replace("v1,", "v2,"), "That is another version.")
    yield vector("v1a alone", sign().replace("v1,", "v1a,"), "That is another algorithm.")
    yield vector("hexadecimal", f"v1,{base64.b64decode(sign()[3:]).hex()}", "It must be base64.")
    yield vector("cut", sign()[:-4], "Its end is missing.")
    yield vector("v1, alone", "v1,", "It is no signature.")
    yield vector("empty", "", "An empty signature proves nothing.")
    yield vector("no signature", None, "There is no proof at all.")
