"""The guards in front of a callback: size, content type, client address, client certificate, rate.

They use only what the server says about the request, not the database, and refuse what they cannot check.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..config.parsers import Network
from ..config.settings import Settings
from ..errors import (
    AddressNotAllowed,
    ClientCertificateRequired,
    InvalidJSON,
    PayloadTooLarge,
    UnsupportedMediaType,
    WebhookDisabled,
)
from .client_certificates import is_admitted, presented_certificate

if TYPE_CHECKING:
    from flask import Request

    from ..runtime.state import WebhookState

__all__ = ["check_guards", "drop_body", "read_body"]

logger = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_DROP_FACTOR = 8


def check_guards(state: WebhookState, request: Request) -> None:
    """Check everything that can be checked before the body is read, in the order of the HTTP contract.

    Raises:
        RequestRefused: from the first guard that fails.
    """
    settings = state.settings
    if not settings.enabled:
        raise WebhookDisabled
    _check_size(settings, request)
    _check_content_type(request)
    _check_content_encoding(request)
    _check_address(settings, request)
    _check_certificate(settings, request)
    if state.rate is not None:
        state.rate.check(request.remote_addr)


def read_body(settings: Settings, request: Request) -> bytes:
    """Read the raw body, never beyond the limit, whatever Content-Length says.

    Raises:
        PayloadTooLarge: a body without a length exceeds the limit.
        InvalidJSON: the body ended early, or its framing is broken.
    """
    cached = getattr(request, "_cached_data", None)
    if isinstance(cached, bytes):  # a before_request function of the host has read it, and Werkzeug kept it
        if len(cached) > settings.max_body_bytes:
            raise _too_large(settings)
        return cached
    length = request.content_length
    left = settings.max_body_bytes + 1 if length is None else length
    try:
        body = b"".join(_chunks(request, left))
    except Exception as error:  # each server has errors of its own for broken framing and lost clients
        raise InvalidJSON("The body did not arrive as it was announced.") from error
    if len(body) > settings.max_body_bytes:
        drop_body(settings, request)
        raise _too_large(settings)
    if length is not None and len(body) != length:
        raise InvalidJSON(f"The body ended after {len(body)} of {length} bytes.")
    return body


def drop_body(settings: Settings, request: Request) -> None:
    """Read and drop the body that a refused client is still sending, within bounds.

    A connection that is closed with unread data is reset, and the client would never see why it was refused. Do not
    call this after the end of the body: on a server that passes the bare socket, another read would block.
    """
    if getattr(request, "_cached_data", None) is not None:  # a before_request function of the host has read it
        return
    most = _DROP_FACTOR * settings.max_body_bytes
    length = request.content_length
    if length is not None and length > most:
        return
    try:
        for _ in _chunks(request, most if length is None else length):
            pass
    except Exception as error:  # noqa: BLE001 - as above; nobody wants this body
        logger.debug("A refused body could not be dropped: %r", error)


def _chunks(request: Request, left: int) -> Iterator[bytes]:
    """Yield the body in pieces; none if it has no length and the server does not detect its end."""
    if request.content_length is None and not request.environ.get("wsgi.input_terminated"):
        return
    stream = request.environ["wsgi.input"]
    while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
        left -= len(chunk)
        yield chunk


def _check_size(settings: Settings, request: Request) -> None:
    if request.content_length is not None and request.content_length > settings.max_body_bytes:
        raise _too_large(settings)


def _too_large(settings: Settings) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {settings.max_body_bytes} bytes.")


def _check_content_type(request: Request) -> None:
    if request.environ.get("CONTENT_TYPE") == "application/json":  # as nearly every sender has it
        return
    type_ = request.mimetype
    if type_ != "application/json" and not type_.endswith("+json"):
        raise UnsupportedMediaType


def _check_content_encoding(request: Request) -> None:
    encoding: str = request.environ.get("HTTP_CONTENT_ENCODING", "identity").strip()
    if encoding.lower() not in {"", "identity"}:
        raise UnsupportedMediaType(f"The body is encoded as {encoding[:40]!a}; send it without a Content-Encoding.")


def _check_address(settings: Settings, request: Request) -> None:
    """Check the address that the server, or the host's ProxyFix, reports; no header is read here."""
    if settings.allowed_ips and not _is_in(request.remote_addr, settings.allowed_ips):
        raise AddressNotAllowed


def _check_certificate(settings: Settings, request: Request) -> None:
    if not settings.client_certs:
        return
    proxied = request.environ.get("werkzeug.proxy_fix.orig", {})
    peer = proxied.get("REMOTE_ADDR", request.environ.get("REMOTE_ADDR"))
    certificate = presented_certificate(request.environ, proxy_is_trusted=_is_in(peer, settings.trusted_proxies))
    if certificate is None or not is_admitted(certificate, settings.client_certs):
        raise ClientCertificateRequired


def _is_in(address: str | None, networks: tuple[Network, ...]) -> bool:
    """Return True if an address is in one of the networks; an invalid one is in none."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any(parsed in network or (mapped is not None and mapped in network) for network in networks)
