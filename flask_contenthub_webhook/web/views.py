"""The HTTP routes: one callback, one of a service in its own words, a batch, health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Request, Response, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug import exceptions

from ..core.late import late
from ..core.received import Outcome, ReceivedEvent
from ..core.redaction import redacted_headers
from ..core.state_machine import Verdict
from ..core.strict_json import parse_object
from ..engine.process import process, process_many
from ..errors import (
    InvalidPayload,
    MethodNotAllowed,
    RequestRefused,
    RouteNotFound,
    SignatureInvalid,
    SignatureMissing,
    UnknownSender,
)
from ..runtime.state import get_state
from ..storage.database_errors import unavailable
from ..storage.failure_log import log_failure
from .batches import BatchItem, split_batch
from .current_request import CurrentRequest, headers_of
from .guards import check_guards, drop_body
from .responses import (
    Accepted,
    Answered,
    Health,
    RefusedItem,
    json_response,
    refusal_response,
    refused_item,
    success_body,
)
from .routing import add_route, drop_host_name

if TYPE_CHECKING:
    from .own_words import receive_own_words
else:
    (receive_own_words,) = late(f"{__package__}.own_words", "receive_own_words")

__all__ = ["blueprint"]

logger = logging.getLogger(__name__)

blueprint = Blueprint("contenthub_webhook", __name__)
_ROUTES = ("callback", "callbacks", "health")


def _answering(view: Callable[..., Accepted | Answered]) -> Callable[..., Response]:
    """Turn what a view returns, or the refusal it raises, into the answer of the HTTP contract."""

    @wraps(view)
    def answer(**arguments: Any) -> Response:
        state = get_state()
        real: Request = request._get_current_object()  # type: ignore[attr-defined]
        current = CurrentRequest(state, real, state.clock(), redacted_headers(headers_of(real.environ)))
        try:
            body = view(current, **arguments)
            return json_response(body, 202 if body.get("outcome") == Verdict.QUEUED else 200)
        except RequestRefused as error:
            refusal = error
        except SQLAlchemyError as error:
            log_failure(state.database, logger, "A request was not processed.", error)
            refusal = unavailable(error)
        if not current.was_read:
            drop_body(state.settings, real)
        current.record(refusal)
        return refusal_response(refusal)

    return answer


@_answering
def callback(current: CurrentRequest, task_id: str) -> Accepted:
    """Receive one event about one task."""
    current.task_id = task_id.removesuffix("/")
    check_guards(current.state, current.request)
    if current.state.registry.has_names and current.names_reader():
        return receive_own_words(current)
    schemes, token = current.state.settings.signature_schemes, current.request.args.get("token")
    current.refuse_unsigned(schemes, token)
    current.read_body()
    current.attempt_text = current.request.args.get("attempt")
    current.verify(schemes, token)
    received = current.event(parse_object(current.body))
    return success_body(process(current.state, received))


@_answering
def callback_of_sender(current: CurrentRequest, sender: str) -> Accepted:
    """Receive one event of a service in its own words, at the URL for all its jobs."""
    check_guards(current.state, current.request)
    if not current.find_sender(sender).reads:
        raise UnknownSender
    return receive_own_words(current)


@_answering
def batch(current: CurrentRequest) -> Answered:
    """Receive many events, each applied in its own transaction; answer with a result for each, in order."""
    check_guards(current.state, current.request)
    schemes = current.state.settings.signature_schemes
    over_the_body = tuple(scheme for scheme in schemes if scheme != "url")
    if over_the_body == schemes:  # otherwise each item may have a token
        current.refuse_unsigned(schemes)
    current.read_body()
    if over_the_body:
        current.verify(over_the_body, None, required=False)
    results = _results(current, split_batch(parse_object(current.body), names_senders=current.state.registry.has_names))
    return {
        "success": all(result["success"] for result in results),
        "message": f"{sum(verdict['success'] for verdict in results)} of {len(results)} events were accepted.",
        "results": results,
    }


def health() -> Response:
    """Show that this process answers, and how it is set up, without the database and without secrets."""
    settings = get_state().settings
    body: Health = {
        "status": "ok",
        "webhook_enabled": settings.enabled,
        "signature_required": settings.require_signature,
        "processing": settings.processing,
    }
    return json_response(body, 200)


@blueprint.before_app_request
def unrouted() -> Response | None:
    """Answer requests for our paths that match no route; Flask's own HTML answer would leave the body unread.

    An unread body cuts the connection, and with it the sender's next callback. Such a request is not a refused event,
    so it is not recorded. Other paths of the host are left alone.
    """
    problem = request.routing_exception
    if problem is None or not isinstance(problem, exceptions.NotFound | exceptions.MethodNotAllowed):
        return None
    settings = get_state().settings
    route, slash, rest = request.path.removeprefix(f"{settings.url_prefix}/").partition("/")
    if not request.path.startswith(f"{settings.url_prefix}/") or route not in _ROUTES:
        return None
    if route == "callback" and slash and request.method == "POST":
        return callback(task_id=rest)  # an id that no route matches, such as one with a line break
    drop_body(settings, request)
    if isinstance(problem, exceptions.NotFound):
        return refusal_response(RouteNotFound())
    response = refusal_response(MethodNotAllowed())
    response.allow.update(problem.valid_methods or ())
    return response


add_route(blueprint, "POST", "/callback/<path:task_id>", callback)
add_route(blueprint, "POST", "/callbacks", batch)
add_route(blueprint, "POST", "/callbacks/<sender>", callback_of_sender)
add_route(blueprint, "GET", "/health", health)
blueprint.url_value_preprocessor(drop_host_name)


def _results(batch: CurrentRequest, items: Sequence[BatchItem | InvalidPayload]) -> list[Accepted | RefusedItem]:
    """Return a result for each item, in order; one bad item does not affect the others.

    Raises:
        RequestRefused: all items were refused, and none was authenticated.
    """
    requests = [batch.item(item) for item in items]
    believed = [_authenticate_item(current, item) for current, item in zip(requests, items, strict=True)]
    refusals = [item for item in believed if isinstance(item, RequestRefused)]
    if refusals and len(refusals) == len(items) and not any(current.verified for current in requests):
        raise next((item for item in refusals if isinstance(item, SignatureInvalid | SignatureMissing)), refusals[0])
    recorded: set[str] = set()  # a stranger's items are recorded once for each reason
    accepted = iter(process_many(batch.state, [item for item in believed if isinstance(item, ReceivedEvent)]))
    results: list[Accepted | RefusedItem] = []
    for current, item in zip(requests, believed, strict=True):
        outcome = next(accepted) if isinstance(item, ReceivedEvent) else item
        if isinstance(outcome, Outcome):
            results.append({**success_body(outcome), "task_id": current.task_id or ""})
        else:
            if current.verified is not None:
                current.record(outcome)
            elif outcome.code not in recorded:
                recorded.add(outcome.code)
                current.record(outcome)
            results.append(refused_item(current.task_id or "", outcome))
    return results


def _authenticate_item(current: CurrentRequest, item: BatchItem | InvalidPayload) -> ReceivedEvent | RequestRefused:
    """Authenticate an item by the signature of the body, or else by its own token."""
    if isinstance(item, InvalidPayload):
        return item
    try:
        if current.verified is None:
            current.verify(current.token_schemes, item.token)
            if current.sender_text is not None:
                current.find_sender(current.sender_text)
        return current.event(dict(item.payload), id_may_be_creators=current.scheme != "url")
    except RequestRefused as refusal:
        return refusal
