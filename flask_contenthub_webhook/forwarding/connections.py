"""Connections to URLs of strangers: to checked addresses only, for a bounded time and bounded answers.

The connection goes to the very address that was resolved and checked, so a name that changes in between has no effect.
TLS still checks the certificate for the name.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import httpcore

from .addresses import Network, reason_against

__all__ = ["AddressRefused", "Deadline", "GuardedBackend", "Resolver", "resolve"]

Resolver = Callable[[str, int], Sequence[str]]
"""Resolves a name and a port to addresses, the best first."""

_MOST_ADDRESSES = 4
"""Addresses tried per name."""
_LARGEST_WRITE = 64 * 1024


class AddressRefused(Exception):
    """No address of a name may be connected to; ``address`` is the first one."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"The address {address} is {reason}, and not in WEBHOOK_FORWARD_ALLOWED_NETWORKS.")
        self.address = address


class Deadline:
    """A moment, in seconds from now, by which a request must be complete."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def shorten(self, seconds: float) -> None:
        """End in this many seconds at the latest."""
        self._at = min(self._at, time.monotonic() + seconds)


def resolve(host: str, port: int) -> Sequence[str]:
    """Resolve a name with the system's resolver."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in entries))


class GuardedBackend(httpcore.NetworkBackend):
    """The network of one request.

    Args:
        deadline: bounds everything, from name resolution to the last byte of the answer.
        allowed: networks that need not be public.
        most_bytes: limit of the answer, including its head.
        resolver: finds the addresses of a name.
    """

    def __init__(
        self, deadline: Deadline, *, allowed: Sequence[Network], most_bytes: int, resolver: Resolver = resolve
    ) -> None:
        self._deadline = deadline
        self._allowed = allowed
        self._most_bytes = most_bytes
        self._resolver = resolver
        self.address: str | None = None
        """The address that was connected to, tried last or refused."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline bounds it
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Resolve, check and connect.

        Raises:
            AddressRefused: no address of the name may be connected to.
            httpcore.ConnectError: none of them answers, or the name has none.
            httpcore.ConnectTimeout: that took too long.
        """
        with _errors_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            addresses = self._checked(self._addresses_of(host, port))
            return _Stream(self._connect(addresses, port), self._deadline, self._most_bytes)

    def _addresses_of(self, host: str, port: int) -> Sequence[str]:
        try:
            ip_address(host)
        except ValueError:
            return _in_time(lambda: self._resolver(host, port), self._deadline)
        return (host,)

    def _checked(self, addresses: Sequence[str]) -> list[str]:
        reasons = [(address, reason_against(address, self._allowed)) for address in addresses]
        allowed = [address for address, reason in reasons if reason is None]
        for address, reason in reasons:
            if reason is not None and not allowed:
                self.address = address
                raise AddressRefused(address, reason)
        return allowed[:_MOST_ADDRESSES]

    def _connect(self, addresses: Sequence[str], port: int) -> socket.socket:
        trouble: OSError = OSError("the name has no address")
        for number, address in enumerate(addresses):
            self.address = address
            share = self._deadline.left() / (len(addresses) - number)
            try:
                connected = socket.create_connection((address, port), share)
            except OSError as error:
                trouble = error
            else:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connected
        raise trouble


class _Stream(httpcore.NetworkStream):
    def __init__(self, connected: socket.socket, deadline: Deadline, most_bytes: int) -> None:
        self._socket = connected
        self._deadline = deadline
        self._bytes_left = most_bytes

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        if self._bytes_left <= 0:
            raise httpcore.ReadError("the answer is too long")
        with _errors_as(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(self._deadline.left())
            data = self._socket.recv(min(max_bytes, self._bytes_left))
        self._bytes_left -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send in pieces, since a socket bounds the time of one call but not of all."""
        left = memoryview(buffer)
        with _errors_as(httpcore.WriteTimeout, httpcore.WriteError):
            while left:
                self._socket.settimeout(self._deadline.left())
                left = left[self._socket.send(left[:_LARGEST_WRITE]) :]

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        try:
            with _errors_as(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._socket.settimeout(self._deadline.left())
                secured = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except BaseException:
            self.close()
            raise
        return _Stream(secured, self._deadline, self._bytes_left)

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        return self._socket if info == "socket" else None


@contextmanager
def _errors_as(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout("no answer in time") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: an invalid name
        raise other(_words(error)) from error


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _in_time(question: Callable[[], Sequence[str]], deadline: Deadline) -> Sequence[str]:
    """Bound a call that has no timeout; if it hangs, its thread is left behind until it ends."""
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(question())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answers.put(error)

    threading.Thread(target=ask, name="contenthub-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer
