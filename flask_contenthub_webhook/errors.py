"""All errors: one base class, and subclasses that know their code and HTTP status.

The docstring of a class is its default message, so senders, logs and the API reference use the same text.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "AddressNotAllowed",
    "ClientCertificateRequired",
    "ConfigurationError",
    "CreatorError",
    "CreatorRefused",
    "CreatorUnclear",
    "CreatorUnreachable",
    "DatabaseUnavailable",
    "DeliveryNotFound",
    "ForwardNotFound",
    "HandlerFailed",
    "InboxFull",
    "InvalidJSON",
    "InvalidPayload",
    "PayloadTooLarge",
    "RateLimited",
    "ReplayRefused",
    "RequestRefused",
    "SignatureExpired",
    "SignatureInvalid",
    "SignatureMissing",
    "TaskMismatch",
    "TaskNotFound",
    "TransitionRefused",
    "UnknownEvent",
    "UnsupportedMediaType",
    "WebhookDisabled",
    "WebhookError",
]


class WebhookError(Exception):
    """Something went wrong in flask_contenthub_webhook."""

    code: ClassVar[str] = "webhook_error"

    def __init__(self, message: str | None = None) -> None:
        self.message = message if message is not None else inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(self.message)


class ConfigurationError(WebhookError):
    """The configuration cannot be used."""

    code = "configuration_error"


class DeliveryNotFound(WebhookError):
    """There is no delivery with this id."""

    code = "delivery_not_found"


class ForwardNotFound(WebhookError):
    """There is no forward with this id."""

    code = "forward_not_found"


class ReplayRefused(WebhookError):
    """This delivery contains no event that can be replayed."""

    code = "replay_refused"


class TransitionRefused(WebhookError):
    """The task's state does not allow this."""

    code = "transition_refused"


class CreatorError(WebhookError):
    """The call to the creator failed."""

    code = "creator_error"


class CreatorUnreachable(CreatorError):
    """The creator could not be reached; nothing was delivered."""

    code = "creator_unreachable"


class CreatorUnclear(CreatorError):
    """The connection to the creator was cut, or its answer was invalid; it may have acted on the request."""

    code = "creator_unclear"


class CreatorRefused(CreatorError):
    """The creator understood the request and refused it."""

    code = "creator_refused"

    def __init__(
        self, message: str | None = None, *, reason: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """The creator's own error code."""
        self.details: Mapping[str, Any] = details or {}
        """Further facts from the creator, such as the fields that it did not accept."""


class RequestRefused(WebhookError):
    """The request was refused."""

    code = "request_refused"
    status: ClassVar[int] = 400
    retry_after: int | None = None
    """Seconds for the ``Retry-After`` header, or None for no such header."""


class WebhookDisabled(RequestRefused):
    """Webhooks are disabled (WEBHOOK_ENABLED)."""

    code = "webhook_disabled"
    status = 404


class PayloadTooLarge(RequestRefused):
    """The body is larger than this application accepts."""

    code = "payload_too_large"
    status = 413


class UnsupportedMediaType(RequestRefused):
    """The content type must be application/json or end in +json."""

    code = "unsupported_media_type"
    status = 415


class AddressNotAllowed(RequestRefused):
    """Callbacks are not accepted from this address."""

    code = "address_not_allowed"
    status = 403


class ClientCertificateRequired(RequestRefused):
    """A client certificate that this application accepts is required."""

    code = "client_certificate_required"
    status = 403


class RateLimited(RequestRefused):
    """Too many requests from this address; try again later."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = max(1, retry_after)


class SignatureMissing(RequestRefused):
    """The request carries no signature, and this application requires one."""

    code = "signature_missing"
    status = 403


class SignatureInvalid(RequestRefused):
    """The signature does not match."""

    code = "signature_invalid"
    status = 401


class SignatureExpired(RequestRefused):
    """The signature is valid, but its timestamp is too far from the current time."""

    code = "signature_expired"
    status = 401


class InvalidJSON(RequestRefused):
    """The body is not strict JSON in UTF-8."""

    code = "invalid_json"
    status = 400


class InvalidPayload(RequestRefused):
    """The body is JSON, but not a valid event."""

    code = "invalid_payload"
    status = 400


class TaskNotFound(RequestRefused):
    """There is no such task."""

    code = "task_not_found"
    status = 404


class UnknownEvent(RequestRefused):
    """This application does not know this event type."""

    code = "unknown_event"
    status = 400


class TaskMismatch(RequestRefused):
    """The event belongs to another task than the address it was sent to."""

    code = "task_mismatch"
    status = 409


class HandlerFailed(RequestRefused):
    """A handler of this application failed; nothing was changed, and the event is kept and will be retried."""

    code = "handler_failed"
    status = 500
    delivery_id: int | None = None
    """The history row that keeps the event."""


class InboxFull(RequestRefused):
    """Too many events are waiting; send it again later."""

    code = "inbox_full"
    status = 503
    retry_after = 10


class DatabaseUnavailable(RequestRefused):
    """The database could not store the event; send it again."""

    code = "database_unavailable"
    status = 503

    def __init__(self, message: str | None = None, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after
