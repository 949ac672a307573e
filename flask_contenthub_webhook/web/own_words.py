"""Receive a callback of a service that reports in its own words."""

from __future__ import annotations

from ..core.signatures import Verified
from ..creators.protocol import Callback
from ..engine.senders import Ignored, OwnWords, receive
from ..errors import SignatureMissing
from .current_request import CurrentRequest
from .responses import Accepted, ignored_body, success_body

__all__ = ["receive_own_words"]


def receive_own_words(current: CurrentRequest) -> Accepted:
    """Believe, read and apply the current request, whose guards were passed and whose sender is known.

    The token of a task's URL vouches for the task and the attempt, the creator for the message. One that cannot verify
    its service's callbacks has only the token, and no URL for all its jobs.

    Raises:
        RequestRefused: it is not believed, or its event cannot be applied.
    """
    state, request, sender = current.state, current.request, current.sender
    if sender is None:
        raise TypeError("find_sender() comes first")
    service = state.guarded(sender)
    verifies = service.verifies_callbacks
    schemes: tuple[str, ...] = ()
    if current.task_id is not None:
        schemes = tuple(scheme for scheme in state.settings.signature_schemes if scheme == "url")
    elif not verifies:
        raise SignatureMissing("Only the URL of a task, with its token, is believed from this sender.")
    token = request.args.get("token")
    if not verifies:
        current.refuse_unsigned(schemes, token)
    current.read_body()
    if current.task_id is not None:
        current.attempt_text = request.args.get("attempt")
    if schemes:
        current.verify(schemes, token, required=not verifies)
    elif not verifies and state.settings.require_signature:
        raise SignatureMissing
    is_authenticated, message_id = current.verified is not None, None
    if verifies:
        current.verified = None
        callback = Callback(headers=dict(request.headers.items()), body=current.body, query=request.args.to_dict())
        message_id = service.verify_callback(callback)
    current.verified = Verified(sender.name, message_id)
    current.check_attempt()
    current.check_task_id()
    outcome = receive(
        state,
        OwnWords(
            sender=sender,
            body=current.body,
            headers=current.headers,
            received_at=current.received_at,
            remote_addr=current.remote_addr,
            message_id=message_id,
            task_id=current.task_id,
            attempt=current.attempt if is_authenticated else None,
            task_is_authenticated=is_authenticated,
        ),
    )
    return ignored_body(outcome) if isinstance(outcome, Ignored) else success_body(outcome)
