"""The current request: read, verified and parsed step by step, and recorded with what is known if it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from flask import Request

from .. import signals
from ..core.canonical import message_digest
from ..core.events import Custom, parse_event
from ..core.logs import get_logger, printable
from ..core.received import ReceivedEvent, Source
from ..core.redaction import storable
from ..core.signatures import Credentials, Verified, carries_signature, verify
from ..creators.registry import Registered
from ..errors import (
    DatabaseUnavailable,
    HandlerFailed,
    InboxFull,
    InvalidPayload,
    RequestRefused,
    SignatureMissing,
    TaskNotFound,
    UnknownSender,
    WebhookDisabled,
)
from ..runtime.refusals import Refusal
from ..runtime.state import WebhookState
from .batches import BatchItem
from .callback_tokens import ATTEMPT, read_attempt
from .guards import read_body

__all__ = ["CurrentRequest", "headers_of"]

logger = get_logger(__name__)

_TASK_ID = re.compile(r"[\x21-\x7e]{1,255}")


class _Headers:
    """The headers of a WSGI environment, for a few that are usually missing, which Werkzeug's search takes long for."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        value: str | None = self._environ.get(_environ_name(name))
        return value


@lru_cache(maxsize=32)
def _environ_name(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"


def headers_of(environ: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the headers of a WSGI environment; a sender repeats its names, so each is spelled once."""
    for key, value in environ.items():
        if (name := _header_name(key)) is not None and (value or key.startswith("HTTP_")):
            yield name, value


@lru_cache(maxsize=256)
def _header_name(key: str) -> str | None:
    if key in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        return key.replace("_", "-").title()
    if key.startswith("HTTP_") and key not in {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}:
        return key[5:].replace("_", "-").title()
    return None


@dataclass(slots=True)
class CurrentRequest:
    """The facts known so far about the current request, or about one item of a batch."""

    state: WebhookState
    request: Request
    received_at: datetime
    headers: dict[str, str] = field(default_factory=dict)
    task_id: str | None = None
    attempt_text: str | None = None
    sender: Registered | None = None
    sender_text: str | None = None
    body: bytes = b""
    was_read: bool = False
    verified: Verified | None = None

    @property
    def attempt(self) -> int | None:
        """The attempt that the request names; None if it names none, or an invalid one."""
        text = self.attempt_text
        return int(text) if text is not None and ATTEMPT.fullmatch(text) else None

    @property
    def scheme(self) -> str | None:
        """The signature scheme that authenticated it."""
        return None if self.verified is None else self.verified.scheme

    @property
    def token_schemes(self) -> tuple[str, ...]:
        """The scheme of tokens, if this application accepts them."""
        return tuple(scheme for scheme in self.state.settings.signature_schemes if scheme == "url")

    @property
    def remote_addr(self) -> str | None:
        """The client's address; behind a proxy it may be any text."""
        address = self.request.remote_addr
        return None if address is None else storable(address)

    def item(self, item: BatchItem | InvalidPayload) -> CurrentRequest:
        """Return an item of this batch, as if it had come alone; a signed id belongs to the batch, not to an item."""
        verified = None if self.verified is None else Verified(self.verified.scheme)
        current = CurrentRequest(self.state, self.request, self.received_at, self.headers, verified=verified)
        if isinstance(item, BatchItem):
            current.task_id, current.body, current.attempt_text = item.task_id, item.body, item.attempt
            current.sender_text = item.sender
        return current

    def refuse_unsigned(self, schemes: tuple[str, ...], token: str | None = None) -> None:
        """Refuse a request that has neither a signature header nor a token, before its body is read.

        Raises:
            SignatureMissing: there is no signature, and one is required.
        """
        if not self.state.settings.require_signature or (token is not None and "url" in schemes):
            return
        if not carries_signature(self._credentials(token), schemes):
            raise SignatureMissing

    def read_body(self) -> None:
        """Read the raw body, once."""
        self.was_read = True
        self.body = read_body(self.state.settings, self.request)

    def verify(self, schemes: tuple[str, ...], token: str | None, *, required: bool = True) -> None:
        """Authenticate the sender by one of these schemes; an unsigned request passes if those are allowed.

        Raises:
            SignatureMissing: there is no signature, and one is required.
            RequestRefused: a signature is wrong.
        """
        settings = self.state.settings
        self.verified = verify(
            self._credentials(token),
            schemes=schemes,
            secrets=settings.secrets,
            tolerance=settings.signature_tolerance,
            now=self.received_at,
        )
        if self.verified is None and required and settings.require_signature:
            raise SignatureMissing

    def _credentials(self, token: str | None) -> Credentials:
        return Credentials(
            headers=_Headers(self.request.environ),
            body=self.body,
            token=token,
            task_id=self.task_id or "",
            attempt=self.attempt,
            sender=self.sender_text,
        )

    def check_attempt(self) -> None:
        """Refuse an attempt that is not a number.

        Raises:
            InvalidPayload: it is not one.
        """
        read_attempt(self.attempt_text)

    def check_task_id(self) -> None:
        """Refuse a task id that cannot be one of ours; some databases would choke on it.

        Raises:
            TaskNotFound: it cannot be one.
        """
        if self.task_id is not None and not _TASK_ID.fullmatch(self.task_id):
            raise TaskNotFound

    def event(self, payload: dict[str, Any], *, id_may_be_creators: bool = False) -> ReceivedEvent:
        """Parse the event.

        Raises:
            InvalidPayload: a field is missing or invalid.
            UnknownEvent: there is no such event type.
            TaskNotFound: the task id cannot be one of ours.
        """
        state, attempt, task_id = self.state, self.attempt, self.task_id or ""
        if attempt is None:
            read_attempt(self.attempt_text)
        fields = state.registry.common_fields if self.sender is None else self.sender.settings.required_result_fields
        event = parse_event(payload, custom_types=state.custom_events, required_fields=fields)
        if not _TASK_ID.fullmatch(task_id):  # some databases would choke on it
            raise TaskNotFound
        # In a signed batch the attempt is signed with the event, so equal failures of two attempts are two messages.
        tells_attempt = id_may_be_creators and attempt is not None and not isinstance(event, Custom)
        return ReceivedEvent(
            task_id=task_id,
            event=event,
            source=Source.WEBHOOK,
            received_at=self.received_at,
            attempt=attempt,
            task_is_authenticated=self.scheme == "url",
            id_may_be_creators=id_may_be_creators,
            scheme=self.scheme,
            message_id=None if self.verified is None else self.verified.message_id,
            digest=message_digest({**payload, "attempt": attempt}, size=len(self.body)) if tells_attempt else None,
            body=self.body,
            headers=self.headers,
            remote_addr=self.remote_addr,
        )

    def names_reader(self) -> bool:
        """Tell whether the URL names a creator whose service reports in its own words; see :meth:`find_sender`."""
        name = self.request.args.get("sender")
        return name is not None and self.find_sender(name).reads

    def find_sender(self, name: str) -> Registered:
        """Return the creator that the URL names.

        Raises:
            UnknownSender: there is none of this name.
            WebhookDisabled: it is only polled.
        """
        self.sender = self.state.registry.sender(name)
        if self.sender is None:
            raise UnknownSender
        if not self.sender.settings.enabled:
            raise WebhookDisabled(f"Callbacks of {self.sender.name} are disabled.")
        self.sender_text = name
        return self.sender

    def record(self, refusal: RequestRefused) -> None:
        """Make a refusal visible: in the log, in the history (bounded), and to the host by a signal."""
        request = self.request
        if not (isinstance(refusal, DatabaseUnavailable) and self.state.database.outage.is_on):  # it counts them
            logger.warning(
                "Callback refused: %d %s: %s",
                refusal.status,
                refusal.code,
                printable(refusal.message),
                extra={
                    "code": refusal.code,
                    "status": refusal.status,
                    "task_id": self.task_id and storable(self.task_id),
                    "attempt": self.attempt,
                    "remote_addr": self.remote_addr,
                },
            )
        if isinstance(refusal, HandlerFailed | DatabaseUnavailable | InboxFull):
            return
        self.state.refusals.record(
            Refusal(
                code=refusal.code,
                message=refusal.message,
                received_at=self.received_at,
                task_id=self.task_id,
                attempt=self.attempt,
                scheme=self.scheme,
                message_id=None if self.verified is None else self.verified.message_id,
                remote_addr=self.remote_addr,
                status=refusal.status,
                headers=self.headers,
                body=self.body,
            ),
        )
        signals.send_quietly(
            signals.callback_rejected,
            self.state.app,
            reason=refusal.code,
            status=refusal.status,
            request={
                "method": request.method,
                "path": storable(request.path),
                "remote_addr": self.remote_addr,
                "content_length": request.content_length,
                "user_agent": storable(request.headers.get("User-Agent", "")) or None,
            },
        )
