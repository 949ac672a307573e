"""How the commands talk HTTP, and what goes wrong with that, in words that say what to do."""

from __future__ import annotations

import errno
import socket
import ssl

import httpx

__all__ = ["connection_words", "http_client"]


def http_client(timeout: float) -> httpx.Client:
    """A client that follows no redirects and uses no proxy: the answer is that of the address itself.

    An authority of one's own is believed where SSL_CERT_FILE or SSL_CERT_DIR name it.
    """
    return httpx.Client(
        timeout=timeout, follow_redirects=False, trust_env=False, verify=httpx.create_ssl_context(trust_env=True)
    )


def connection_words(error: Exception) -> str:
    """Why there was no answer, and what that usually means."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate is not believed ({cause.verify_message}). Renew it, or serve the whole chain; for an "
            "authority of your own set SSL_CERT_FILE."
        )
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or cause}). Does the port speak https?"
    if isinstance(cause, socket.gaierror):
        return "the host name cannot be resolved. Is it spelled right, and is it in the DNS?"
    if isinstance(cause, ConnectionRefusedError) or getattr(cause, "errno", None) == errno.ECONNREFUSED:
        return "the connection was refused: nothing listens there. Is it running, on this port?"
    if isinstance(error, httpx.TimeoutException):
        return "there was no answer in time. Does a firewall drop the packets, or is the server overloaded?"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return f"the connection was cut instead of an answer ({error}). Does the port speak what the URL says?"
    return f"{str(error) or type(error).__name__}."


def _root(error: BaseException) -> BaseException:
    seen = error
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    return seen
