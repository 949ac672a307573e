"""The HTTP client of the commands, and explanations of connection errors."""

from __future__ import annotations

import errno
import socket
import ssl

import httpx

__all__ = ["describe_connection_error", "http_client"]


def http_client(timeout: float) -> httpx.Client:
    """Make a client that follows no redirects and uses no proxy, so that the address itself answers.

    SSL_CERT_FILE or SSL_CERT_DIR may name a private CA.
    """
    return httpx.Client(
        timeout=timeout, follow_redirects=False, trust_env=False, verify=httpx.create_ssl_context(trust_env=True)
    )


def describe_connection_error(error: Exception) -> str:
    """Explain why there was no answer, and what usually causes it."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate is not trusted ({cause.verify_message}). Renew it, or serve the whole chain; for a "
            "private CA set SSL_CERT_FILE."
        )
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or cause}). Does the port speak HTTPS?"
    if isinstance(cause, socket.gaierror):
        return "the host name cannot be resolved. Is it spelled correctly, and is it in the DNS?"
    if isinstance(cause, ConnectionRefusedError) or getattr(cause, "errno", None) == errno.ECONNREFUSED:
        return "the connection was refused: nothing is listening there. Is it running, and on this port?"
    if isinstance(error, httpx.TimeoutException):
        return "there was no answer in time. Does a firewall drop the packets, or is the server overloaded?"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return f"the connection was closed without an answer ({error}). Does the port speak the protocol of the URL?"
    return f"{str(error) or type(error).__name__}."


def _root(error: BaseException) -> BaseException:
    seen = error
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    return seen
