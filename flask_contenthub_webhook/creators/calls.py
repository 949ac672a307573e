"""HTTP calls to a creator; errors distinguish requests not delivered, outcomes unknown, and refusals.

No call is retried here: content-creator crashes on some calls, and would crash again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from urllib.parse import unquote, urlsplit

import httpx

from ..core.per_process import PerProcess
from ..core.redaction import Redactor, clean
from ..core.trace_headers import TRACE_HEADERS
from ..errors import ConfigurationError, CreatorUnclear, CreatorUnreachable
from .http_answers import Answer, ConnectionCut, NoAnswer, checked, is_not_found, retry_after

__all__ = ["Calls"]

_MAX_BODY = 32 * 1024 * 1024
_CONNECTIONS = 32
_IDLE_SECONDS = 2.0  # Node closes idle connections after 5 s; reusing one at that moment looks like a crash
_SHORTEST_WAIT = 0.05
_GATEWAY_HEADERS = frozenset({"server", "via"})
"""Headers that content-creator does not send, and what stands in front of it does."""


class _Pool:
    """The connections of one process, opened by its first call."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: httpx.Client | None = None


class Calls:
    """Client of one creator: its address, its key, and a connection pool shared by all threads.

    Args:
        base_url: scheme, host and optional path; a user and a password in it are sent as a Basic header.
        api_key: sent as ``Authorization: Bearer``.
        timeout: seconds for connecting, for sending, for each read, and for a whole answer once it has begun.
        client: the pool to use instead of creating one.

    Raises:
        ConfigurationError: the address or the key cannot be used.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None, timeout: float, client: httpx.Client | None = None
    ) -> None:
        user, password, self._base_url = _split_user(base_url)
        self.redactor = Redactor([api_key, password])
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {_checked_key(api_key)}"
        if user or password:
            if api_key is not None:
                raise ConfigurationError(
                    "CREATOR_API_BASE_URL contains a user, and CREATOR_API_KEY is set as well: both would be the "
                    "Authorization header. Use one of them."
                )
            self._auth: httpx.Auth = httpx.BasicAuth(user, password)
        else:
            self._auth = httpx.Auth()  # adds nothing, not even from .netrc
        self.timeout = timeout
        self.behind_gateway = self._base_url.startswith("https:")
        """True if something in front of the creator answers for it, as a request that hangs may never have reached it:
        an earlier answer showed that, or TLS does, which content-creator does not speak."""
        self._given = client
        self._pool = PerProcess(_Pool)

    def __repr__(self) -> str:
        return f"<Calls {self._base_url}>"

    @property
    def address(self) -> str:
        """The creator's URL, without secrets."""
        return self._base_url

    def close(self) -> None:
        """Close the connections, unless the pool was passed in. The next call opens new ones."""
        pool = self._pool.value
        with pool.lock:
            client, pool.client = pool.client, None
        if client is not None:
            client.close()

    # --- calling ---------------------------------------------------------------------------------------------

    def send(self, method: str, path: str, *, content: bytes | None = None, wait: float | None = None) -> Answer:
        """Make one call, with a path below the base URL, and wait for the answer this long, or for the timeout.

        Raises:
            CreatorUnreachable: the request was not delivered completely.
            ConnectionCut: the connection was closed before an answer.
            NoAnswer: the answer took too long.
            CreatorUnclear: the answer is not HTTP, too large, or compressed without being asked to.
        """
        try:
            return self._send(method, path, content, self.timeout if wait is None else max(wait, _SHORTEST_WAIT))
        except httpx.ReadTimeout:
            raise NoAnswer(f"The creator at {self.address} did not answer in time.") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise CreatorUnreachable(
                f"The creator at {self.address} cannot be connected to: {_reason(error)}. Is it running, and is "
                "CREATOR_API_BASE_URL right?"
            ) from None
        except (httpx.WriteTimeout, httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise CreatorUnreachable(f"The request could not be sent to {self.address}: {_reason(error)}.") from None
        except httpx.TransportError as error:
            raise ConnectionCut(f"The creator at {self.address} cut the connection: {_reason(error)}.") from None

    def _send(self, method: str, path: str, content: bytes | None, wait: float) -> Answer:
        headers = {**self._headers, **TRACE_HEADERS.get()}
        if content is not None:
            headers["Content-Type"] = "application/json"
        timeout = httpx.Timeout(self.timeout, read=wait)
        client = self._client()
        request = client.build_request(method, self._base_url + path, content=content, headers=headers, timeout=timeout)
        try:
            response = client.send(request, auth=self._auth, follow_redirects=False, stream=True)
        except RuntimeError as error:
            if not client.is_closed:
                raise
            raise CreatorUnreachable(f"The connections to {self.address} were closed: {_reason(error)}.") from None
        try:
            if not self.behind_gateway:
                self.behind_gateway = not response.headers.keys().isdisjoint(_GATEWAY_HEADERS)
            return Answer(response.status_code, self._read(response), retry_after(response.headers.get("Retry-After")))
        except httpx.ReadTimeout:
            late = NoAnswer(f"The creator at {self.address} did not complete its answer in time.")
            late.status = response.status_code
            raise late from None
        finally:
            response.close()

    def _read(self, response: httpx.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise CreatorUnclear(f"The creator at {self.address} sent a compressed answer, which was not requested.")
        deadline = time.monotonic() + self.timeout
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > _MAX_BODY:
                raise CreatorUnclear(f"The answer from {self.address} is larger than {_MAX_BODY // 1024**2} MiB.")
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer drips")
        return bytes(body)

    def _client(self) -> httpx.Client:
        if self._given is not None:
            return self._given
        pool = self._pool.value
        with pool.lock:
            if pool.client is None:
                pool.client = httpx.Client(
                    follow_redirects=False,
                    trust_env=False,
                    limits=httpx.Limits(
                        max_connections=_CONNECTIONS,
                        max_keepalive_connections=_CONNECTIONS,
                        keepalive_expiry=_IDLE_SECONDS,
                    ),
                )
                weakref.finalize(self, _close_here, pool.client, os.getpid())
            return pool.client

    # --- checking -------------------------------------------------------------------------------------------

    def checked(self, answer: Answer, redactor: Redactor | None = None) -> Answer:
        """Return the answer if it is a success of the creator; see :func:`.http_answers.checked`."""
        return checked(answer, self.address, redactor or self.redactor)

    def is_not_found(self, answer: Answer) -> bool:
        """Return True if the creator does not know the job; see :func:`.http_answers.is_not_found`."""
        return is_not_found(answer, self.address)


def _reason(error: Exception) -> str:
    return clean(str(error)).rstrip(".") or type(error).__name__


def _split_user(base_url: str) -> tuple[str, str, str]:
    """Split a URL into user, password and the URL without them, since httpx logs the whole URL."""
    try:
        parts = urlsplit(base_url)
        httpx.URL(base_url)
        (parts.hostname or "").encode("idna")
        port = parts.port
    except (httpx.InvalidURL, ValueError):
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise ConfigurationError(
            "The creator's URL must be an absolute http or https URL without query and fragment, such as "
            "http://127.0.0.1:3001."
        )
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return unquote(parts.username or ""), unquote(parts.password or ""), address.rstrip("/")


def _checked_key(api_key: str) -> str:
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key or not api_key:
        raise ConfigurationError(
            "CREATOR_API_KEY must be printable ASCII without blanks, since it is sent in a header."
        )
    return api_key


def _close_here(client: httpx.Client, pid: int) -> None:
    """Close a pool whose owner was garbage-collected, in the process that opened it."""
    if pid == os.getpid():
        client.close()
