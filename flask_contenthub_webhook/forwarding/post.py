"""One request that carries an event to a URL, and what came of it."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import httpcore
import httpx

from .._version import __version__
from ..core.redaction import shown
from .addresses import Network
from .connections import AddressRefused, Deadline, GuardedBackend, Resolver, resolve

__all__ = ["Answer", "Poster"]

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024
"""Of an answer, its head included."""
_MOST_WORDS = 2048
"""Of the body, which is only read for what it says of a failure."""
_PATIENCE_WITH_THE_BODY = 1.0
"""Seconds; the status is there by then, and it alone decides."""
_GONE = 410
_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"flask-contenthub-webhook/{__version__}",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one request.

    Args:
        status: the HTTP status, or None where none came.
        error: why it failed; None where it did not.
        address: the address that was connected to, or refused.
        retry_after: the header of that name.
        final: True where another try would be pointless or unwanted.
        duration_ms: how long it took.
    """

    status: int | None = None
    error: str | None = None
    address: str | None = None
    retry_after: str | None = None
    final: bool = False
    duration_ms: float = 0.0


class Poster:
    """Posts to URLs of strangers. Each request has a connection of its own, follows nothing, and uses no proxy.

    Args:
        timeout: seconds for all of a request: finding the address, connecting, sending, the answer.
        allowed: networks that may be connected to although they are not public.
        resolver: finds the addresses of a name.
        ssl_context: whose certificates are believed; by default the usual authorities, and SSL_CERT_FILE.
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
        self._given_context = ssl_context

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body; whatever happens is the answer.

        Args:
            url: http or https.
            body: JSON.
            headers: beside the usual ones.
        """
        started = time.monotonic()
        deadline = Deadline(self._timeout)
        backend = GuardedBackend(deadline, allowed=self._allowed, most_bytes=_MOST_BYTES, resolver=self._resolver)
        status, error, retry_after, final = None, None, None, False
        try:
            status, words, retry_after = self._post(url, body, headers, backend, deadline)
            error, final = _judge(status, words), status == _GONE
        except AddressRefused as refusal:
            error, final = str(refusal), True
        except httpcore.TimeoutException:
            error = f"There was no answer within {self._timeout:g} s."
        except (httpcore.NetworkError, httpcore.ProtocolError) as trouble:
            error = f"The request failed: {shown(str(trouble)).rstrip('.') or type(trouble).__name__}."
        except Exception as trouble:  # a receiver may do anything; the others' events must not wait for it
            logger.exception("A forwarded event could not be sent, in a way that nobody foresaw.")
            error = f"The request failed: {type(trouble).__name__}."
        return Answer(
            status=status,
            error=error,
            address=backend.address,
            retry_after=retry_after,
            final=final,
            duration_ms=(time.monotonic() - started) * 1000,
        )

    def _post(
        self, url: str, body: bytes, headers: Mapping[str, str], backend: GuardedBackend, deadline: Deadline
    ) -> tuple[int, str, str | None]:
        """Status, the beginning of the body, and Retry-After."""
        parts = httpx.URL(url)
        target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
        sent = [("Host", parts.netloc.decode("ascii")), *_HEADERS.items(), *headers.items()]
        connection = httpcore.HTTPConnection(target.origin, self._context(target), network_backend=backend)
        with (
            closing(connection),
            connection.stream("POST", target, headers=sent, content=body) as response,
        ):
            deadline.shorten(_PATIENCE_WITH_THE_BODY)
            known = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            is_redirect = 300 <= response.status < 400  # noqa: PLR2004
            words = _redirect_words(known.get(b"location")) if is_redirect else _beginning(response)
            return response.status, words, known.get(b"retry-after")

    def _context(self, target: httpcore.URL) -> ssl.SSLContext | None:
        return self._trusted if target.scheme == b"https" else None

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        """Made when it is first needed: reading the authorities takes a while."""
        return self._given_context if self._given_context is not None else httpx.create_ssl_context()


def _judge(status: int, words: str) -> str | None:
    """Why an answer is a failure; None where it is none."""
    if 200 <= status < 300:  # noqa: PLR2004
        return None
    said = shown(words)
    return f"The receiver answered {status}{f': {said}' if said else ''}."


def _redirect_words(location: str | None) -> str:
    return f"a redirect{f' to {location}' if location else ''}, which is not followed"


def _beginning(response: httpcore.Response) -> str:
    """What the body says, as far as it comes soon; one that never ends is cut off."""
    read = bytearray()
    try:
        for chunk in response.iter_stream():
            read += chunk
            if len(read) >= _MOST_WORDS:
                break
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        logger.debug("The body of an answer was not read to its end.")
    return bytes(read[:_MOST_WORDS]).decode("utf-8", errors="replace")
