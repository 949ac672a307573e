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
    its service's callbacks has only the token, which is then required, and no URL for all its jobs.

    Raises:
        RequestRefused: it is not believed, or its event cannot be applied.
    """
    state, request, sender = current.state, current.request, current.sender
    if sender is None:
        raise TypeError("find_sender() comes first")
    service = state.guarded(sender)
    verifies = service.verifies_callbacks
    schemes = () if current.task_id is None else current.token_schemes
    token = request.args.get("token")
    if not verifies:
        _refuse_tokenless(current, schemes, token)
    current.read_body()
    if current.task_id is not None:
        current.attempt_text = request.args.get("attempt")
    if schemes:
        current.verify(schemes, token, required=False)
    is_authenticated, message_id = current.verified is not None, None
    if verifies:
        current.verified = None
        callback = Callback(headers=dict(request.headers.items()), body=current.body, query=request.args.to_dict())
        message_id = service.verify_callback(callback)
    if verifies or is_authenticated:
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


def _refuse_tokenless(current: CurrentRequest, schemes: tuple[str, ...], token: str | None) -> None:
    """Refuse a callback that nothing can vouch for, before its body is read.

    Only where URLs have no tokens, for want of a secret or of the scheme, may an unsigned one pass.

    Raises:
        SignatureMissing: it has no token.
    """
    settings = current.state.settings
    is_required = settings.require_signature or settings.callback_urls.secret is not None
    if current.task_id is None or (is_required and (token is None or not schemes)):
        raise SignatureMissing("Only the URL of a task, with its token, is believed from this sender.")
