"""All errors: one base class, and subclasses that know their code and HTTP status.

The docstring of a class is its default message, so senders, logs and the API reference use the same text.
"""

from __future__ import annotations

import inspect
import signal
import traceback
from collections.abc import Mapping
from types import CodeType
from typing import Any, ClassVar

__all__ = [
    "AddressNotAllowed",
    "ClientCertificateRequired",
    "ConfigurationError",
    "CreatorAway",
    "CreatorBug",
    "CreatorError",
    "CreatorRefused",
    "CreatorUnclear",
    "CreatorUnreachable",
    "DatabaseUnavailable",
    "DeliveryNotFound",
    "EventNotStorable",
    "EventUnreadable",
    "ForwardNotFound",
    "HandlerFailed",
    "InboxFull",
    "InsecureConfiguration",
    "InvalidJSON",
    "InvalidPayload",
    "MethodNotAllowed",
    "PayloadTooLarge",
    "RateLimited",
    "ReplayRefused",
    "RequestRefused",
    "RouteNotFound",
    "SignatureExpired",
    "SignatureInvalid",
    "SignatureMissing",
    "TaskMismatch",
    "TaskNotFound",
    "TransitionRefused",
    "UnknownEvent",
    "UnknownSender",
    "UnsupportedMediaType",
    "WebhookDisabled",
    "WebhookError",
]


class WebhookError(Exception):
    """Something went wrong in flask_contenthub_webhook."""

    code: ClassVar[str] = "webhook_error"

    def __init_subclass__(cls, **attributes: Any) -> None:
        """Set the class attributes given as arguments in a subclass's class statement."""
        super().__init_subclass__()
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(self, message: str | None = None) -> None:
        self.message = message if message is not None else inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(self.message)


class ConfigurationError(WebhookError, code="configuration_error"):
    """The configuration cannot be used."""


class DeliveryNotFound(WebhookError, code="delivery_not_found"):
    """There is no delivery with this id."""


class ForwardNotFound(WebhookError, code="forward_not_found"):
    """There is no forward with this id."""


class ReplayRefused(WebhookError, code="replay_refused"):
    """This delivery contains no event that can be replayed."""


class TransitionRefused(WebhookError, code="transition_refused"):
    """The task's state does not allow this."""


class CreatorError(WebhookError, code="creator_error"):
    """The call to the creator failed."""

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds for which the creator should be left alone at least, if it, or what answered for it, said so."""


class CreatorUnreachable(CreatorError, code="creator_unreachable"):
    """The creator could not be reached; nothing was delivered."""


class CreatorUnclear(CreatorError, code="creator_unclear"):
    """The creator did not answer in time, or not readably; it may have acted on the request."""


class CreatorAway(CreatorUnclear, code="creator_away"):
    """The creator did not answer itself: a gateway did, or the connection was cut. It may have acted on the request."""


class CreatorBug(CreatorUnclear, code="creator_bug"):
    """A method of the creator raised an unexpected exception, or returned something that is not a report."""


class CreatorRefused(CreatorError, code="creator_refused"):
    """The creator understood the request and refused it."""

    def __init__(
        self, message: str | None = None, *, reason: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """The creator's own error code."""
        self.details: Mapping[str, Any] = details or {}
        """Further facts from the creator, such as the fields that it did not accept."""


class RequestRefused(WebhookError, code="request_refused"):
    """The request was refused."""

    status: ClassVar[int] = 400
    retry_after: int | None = None
    """Seconds for the ``Retry-After`` header, at least one; None for no such header."""

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = max(1, retry_after)


class WebhookDisabled(RequestRefused, code="webhook_disabled", status=404):
    """Webhooks are disabled (WEBHOOK_ENABLED)."""


class RouteNotFound(RequestRefused, code="route_not_found", status=404):
    """There is no such route."""


class UnknownSender(RequestRefused, code="unknown_sender", status=404):
    """This application accepts no callbacks from a sender of this name."""


class MethodNotAllowed(RequestRefused, code="method_not_allowed", status=405):
    """This route does not accept this method; the Allow header names those that it accepts."""


class PayloadTooLarge(RequestRefused, code="payload_too_large", status=413):
    """The body is larger than this application accepts."""


class UnsupportedMediaType(RequestRefused, code="unsupported_media_type", status=415):
    """The content type must be application/json or end in +json."""


class AddressNotAllowed(RequestRefused, code="address_not_allowed", status=403):
    """Callbacks are not accepted from this address."""


class ClientCertificateRequired(RequestRefused, code="client_certificate_required", status=403):
    """A client certificate that this application accepts is required."""


class EventNotStorable(RequestRefused, code="event_not_storable", status=422):
    """The database of this application can never store this event."""


class RateLimited(RequestRefused, code="rate_limited", status=429, retry_after=1):
    """Too many requests from this address; try again later."""


class SignatureMissing(RequestRefused, code="signature_missing", status=403):
    """The request carries no signature, and this application requires one."""


class SignatureInvalid(RequestRefused, code="signature_invalid", status=401):
    """The signature does not match."""


class SignatureExpired(RequestRefused, code="signature_expired", status=401):
    """The signature is valid, but its timestamp is too far from the current time."""


class InvalidJSON(RequestRefused, code="invalid_json", status=400):
    """The body is not strict JSON in UTF-8."""


class InvalidPayload(RequestRefused, code="invalid_payload", status=400):
    """The body is JSON, but not a valid event."""


class TaskNotFound(RequestRefused, code="task_not_found", status=404):
    """There is no such task."""


class UnknownEvent(RequestRefused, code="unknown_event", status=400):
    """This application does not know this event type."""


class TaskMismatch(RequestRefused, code="task_mismatch", status=409):
    """The event belongs to a different task from the one that it was sent to."""


class HandlerFailed(RequestRefused, code="handler_failed", status=500):
    """A handler of this application failed; nothing was changed, and the event is kept and will be tried again."""

    delivery_id: int | None = None
    """The history row that keeps the event."""
    failure: str = ""
    """The handler, and what it raised; the sender is not told."""


class InboxFull(RequestRefused, code="inbox_full", status=503, retry_after=10):
    """Too many events are waiting; send this one again later."""


class EventUnreadable(RequestRefused, code="event_unreadable", status=503, retry_after=10):
    """The event cannot be read, or matched with its task, at the moment; send it again."""


class DatabaseUnavailable(RequestRefused, code="database_unavailable", status=503, retry_after=5):
    """The database could not store the event; send it again."""


class InsecureConfiguration(UserWarning):
    """A setting works, but is weaker than a public endpoint should be."""


def ends_process(error: BaseException) -> bool:
    """Tell whether an exception out of a handler is meant for the process: Ctrl-C, or a shutdown signal.

    A handler's own ``sys.exit()`` is not. Servers raise SystemExit in their signal handler, which Python calls in the
    middle of the code that is running, so the traceback goes through the signal handler.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    if not isinstance(error, SystemExit):
        return False
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def without_parameters(error: BaseException) -> BaseException:
    """Return an error whose text, and that of its causes, has no values of SQL statements: URLs, results, bodies."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if getattr(one, "hide_parameters", None) is False:  # SQLAlchemy's, which this module does not import
            one.hide_parameters = True  # type: ignore[attr-defined]
        waiting += [one.__cause__, one.__context__]
    return error


def _code_of(handler: Any) -> CodeType | None:
    """Return the code of a function, method, partial or callable object; None for SIG_DFL and the like."""
    if not callable(handler):
        return None
    function = getattr(handler, "func", handler)
    if not hasattr(function, "__code__"):  # a method has that of its function
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
