"""The guards in front of a callback: size, content type, client address, client certificate, rate.

They look at what the server says about the request, touch no database, and refuse what they cannot check.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from ..config.parsers import Network
from ..config.settings import Settings
from ..errors import (
    AddressNotAllowed,
    ClientCertificateRequired,
    ConfigurationError,
    InvalidJSON,
    PayloadTooLarge,
    RateLimited,
    UnsupportedMediaType,
    WebhookDisabled,
)
from .client_certificates import is_admitted, presented_certificate

if TYPE_CHECKING:
    from flask import Flask, Request
    from limits.strategies import RateLimiter

    from ..runtime.state import WebhookState

__all__ = ["RateGuard", "check_guards", "drop_body", "read_body"]

logger = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_DROP_FACTOR = 8


def check_guards(state: WebhookState, request: Request) -> None:
    """Everything that can be checked before the body is read, in the order of the HTTP contract.

    Raises:
        RequestRefused: the first guard that does not hold.
    """
    settings = state.settings
    if not settings.enabled:
        raise WebhookDisabled
    _check_size(settings, request)
    _check_content_type(request)
    _check_address(settings, request)
    _check_certificate(settings, request)
    if state.rate is not None:
        state.rate.check(request)


def read_body(settings: Settings, request: Request) -> bytes:
    """The raw body, never more of it than is allowed, whatever Content-Length says.

    Raises:
        PayloadTooLarge: a body without a length went on past the limit.
        InvalidJSON: the body ended early or was not sent as announced.
    """
    cached = getattr(request, "_cached_data", None)
    if isinstance(cached, bytes):  # a before_request function of the host's read it, and Werkzeug kept it
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

    A connection that is closed with unread data is reset, and the client would never see why it was refused. Only call
    it for a body that has an end that nobody has reached yet: a server may hand over the bare socket, and then reading
    on waits for ever.
    """
    if getattr(request, "_cached_data", None) is not None:  # a before_request function of the host's read it
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
    """The body in pieces; where it has neither a length nor an end that the server knows, there is none."""
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


def _check_address(settings: Settings, request: Request) -> None:
    """The address is the server's, or ProxyFix's where the host trusts a proxy; never a header of our own reading."""
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
    """Whether an address is in one of the networks; what is no address is in none."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any(parsed in network or (mapped is not None and mapped in network) for network in networks)


class RateGuard:
    """A rate per client address, counted by Flask-Limiter's engine in the storage that the host configured for it.

    The host's own ``Limiter`` is used where it has one. Where it has none, none is registered on its application,
    since a Limiter would limit all of its routes; the same ``RATELIMIT_STORAGE_URI`` and ``RATELIMIT_STRATEGY`` hold.

    Args:
        app: the application.
        rate: in the notation of Flask-Limiter, such as ``100/minute``.

    Raises:
        ConfigurationError: Flask-Limiter is not installed, or the notation is wrong.
    """

    def __init__(self, app: Flask, rate: str) -> None:
        if importlib.util.find_spec("flask_limiter") is None:
            raise ConfigurationError(
                "WEBHOOK_RATE_LIMIT needs Flask-Limiter: pip install 'flask-contenthub-webhook[ratelimit]'."
            )
        from limits import parse_many

        try:
            self._rates = parse_many(rate)
        except ValueError:
            raise ConfigurationError(
                f"WEBHOOK_RATE_LIMIT is {rate!r}; it must be a rate such as 100/minute or '10 per second'."
            ) from None
        self._app = app

    def check(self, request: Request) -> None:
        """Count this request. A storage that is away lets it pass: a lost callback costs more than a missed count.

        Raises:
            RateLimited: the rate is used up; says when it is not any more.
        """
        key = ("contenthub_webhook", request.remote_addr or "")
        for rate in self._rates:
            try:
                if self._strategy.hit(rate, *key):
                    continue
                reset_at = self._strategy.get_window_stats(rate, *key).reset_time
            except Exception:  # whatever the storage's client raises
                logger.exception("The rate could not be counted; the request passes.")
                return
            raise RateLimited(retry_after=int(reset_at - time.time()) + 1)

    @cached_property
    def _strategy(self) -> RateLimiter:
        for limiter in self._app.extensions.get("limiter", ()):
            strategy: RateLimiter = limiter.limiter
            return strategy
        from limits.storage import storage_from_string
        from limits.strategies import STRATEGIES

        config = self._app.config
        storage = storage_from_string(
            config.get("RATELIMIT_STORAGE_URI") or "memory://", **(config.get("RATELIMIT_STORAGE_OPTIONS") or {})
        )
        return STRATEGIES[config.get("RATELIMIT_STRATEGY") or "fixed-window"](storage)
