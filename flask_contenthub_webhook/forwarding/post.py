"""Post an event to a URL."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import httpcore
import httpx

from .._version import __version__
from ..core.redaction import Redactor, clean, redacted_content, redacted_headers, storable
from .addresses import Network
from .connections import AddressRefused, Deadline, GuardedBackend, Resolver, resolve

__all__ = ["Answer", "Poster"]

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024
"""Limit of an answer, including its head."""
_MOST_WORDS = 2048
"""Limit of the body, which is only read for people."""
_PATIENCE_WITH_THE_BODY = 1.0
"""Seconds to wait for the body; the status alone decides."""
_GONE = 410
_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"flask-contenthub-webhook/{__version__}",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcome of one request.

    Args:
        status: the HTTP status, if any came.
        error: the reason of a failure.
        address: the address that was connected to, or refused.
        final: True if another try would be pointless or unwanted.
        sent: the headers of the request, secrets redacted.
        headers: the headers of the answer, secrets redacted.
        body: the beginning of its body, without the secrets of the URL.
    """

    status: int | None = None
    error: str | None = None
    address: str | None = None
    retry_after: str | None = None
    final: bool = False
    duration_ms: float = 0.0
    sent: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: str | None = field(default=None, repr=False)


class _Response(NamedTuple):
    """The part of an answer that is read."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> str | None:
        """Return the last header of a name, in small letters."""
        return {key.lower(): value for key, value in self.headers}.get(name)


class Poster:
    """Posts to URLs of strangers, each time over a new connection, without redirects and proxies.

    Args:
        timeout: seconds for the whole request, including name resolution.
        allowed: networks that need not be public.
        resolver: finds the addresses of a name.
        ssl_context: the trusted certificates; by default the usual authorities, and SSL_CERT_FILE.
    """

    def __init__(
        self,
        *,
        timeout: float,
        allowed: Sequence[Network] = (),
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._ssl_context = ssl_context

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a JSON body, with further headers. Never raises: an exception becomes ``Answer.error``."""
        started = time.monotonic()
        deadline = Deadline(self._timeout)
        backend = GuardedBackend(deadline, allowed=self._allowed, most_bytes=_MOST_BYTES, resolver=self._resolver)
        sent = [*_HEADERS.items(), *headers.items()]
        response, error, final = None, None, False
        try:
            sent.insert(0, ("Host", httpx.URL(url).netloc.decode("ascii")))
            response = self._post(url, body, sent, backend, deadline)
            error, final = _judge(response, Redactor().also(url)), response.status == _GONE
        except AddressRefused as refusal:
            error, final = str(refusal), True
        except httpcore.TimeoutException:
            error = f"There was no answer within {self._timeout:g} s."
        except (httpcore.NetworkError, httpcore.ProtocolError) as trouble:
            error = f"The request failed: {clean(str(trouble)).rstrip('.') or type(trouble).__name__}."
        except Exception as trouble:  # a receiver may do anything; the others' events must not wait for it
            logger.exception("A forwarded event could not be sent because of an unexpected error.")
            error = f"The request failed: {type(trouble).__name__}."
        answer = Answer(
            error=error,
            address=backend.address,
            final=final,
            duration_ms=(time.monotonic() - started) * 1000,
            sent=redacted_headers(sent),
        )
        return answer if response is None else _with_response(answer, response, Redactor(_proofs(headers)).also(url))

    def _post(
        self, url: str, body: bytes, sent: list[tuple[str, str]], backend: GuardedBackend, deadline: Deadline
    ) -> _Response:
        """Send the request, and return what came of the answer soon."""
        parts = httpx.URL(url)
        target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
        connection = httpcore.HTTPConnection(target.origin, self._context(target), network_backend=backend)
        with (
            closing(connection),
            connection.stream("POST", target, headers=sent, content=body) as response,
        ):
            deadline.shorten(_PATIENCE_WITH_THE_BODY)
            received = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
            return _Response(response.status, received, _beginning(response))

    def _context(self, target: httpcore.URL) -> ssl.SSLContext | None:
        return self._trusted if target.scheme == b"https" else None

    @property
    def _trusted(self) -> ssl.SSLContext:
        if self._ssl_context is None:  # not a cached_property, whose lock a forked child might find locked
            self._ssl_context = httpx.create_ssl_context()
        return self._ssl_context


def _judge(response: _Response, redactor: Redactor) -> str | None:
    status, words = response.status, response.body
    if 200 <= status < 300:  # noqa: PLR2004
        return None
    if 300 <= status < 400:  # noqa: PLR2004
        location = response.header("location")
        words = f"a redirect{f' to {location}' if location else ''}, which is not followed"
    said = clean(redactor.text(words))
    return f"The receiver answered {status}{f': {said}' if said else ''}."


def _with_response(answer: Answer, response: _Response, redactor: Redactor) -> Answer:
    body = redacted_content(redactor.text(response.body), by_name=True)
    return replace(
        answer,
        status=response.status,
        retry_after=response.header("retry-after"),
        headers=redacted_headers((name, redactor.text(value)) for name, value in response.headers),
        body=storable(body)[:_MOST_WORDS] or None,
    )


def _proofs(headers: Mapping[str, str]) -> list[str]:
    """Return the signatures of a request, which a receiver may repeat."""
    return [proof for name, value in headers.items() if "signature" in name.lower() for proof in value.split()]


def _beginning(response: httpcore.Response) -> str:
    """Read the beginning of the body, as far as it arrives soon."""
    read = bytearray()
    try:
        for chunk in response.iter_stream():
            read += chunk
            if len(read) >= _MOST_WORDS:
                break
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        logger.debug("The body of an answer was not read to its end.")
    return bytes(read[:_MOST_WORDS]).decode("utf-8", errors="replace")
