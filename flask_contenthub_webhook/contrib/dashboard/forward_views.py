"""The page of one forward, and resending of one and of many."""

from __future__ import annotations

from flask import Response, redirect, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as AnyResponse

from ...errors import ForwardNotFound, WebhookError
from ...forwarding.replay import replay_forward
from ...runtime.state import get_state
from ...storage.queries import reading
from .access import person
from .filters import cursor
from .forms import check_form, has_secret_key, problem_said, read_signed, signed
from .forwards import read_forward, url_of
from .rendering import page
from .resend import RESENDABLE, ResendOrder, carry_out_resend, plan_resend

__all__ = ["count_resend", "forward", "resend_many", "resend_one"]


def forward(forward_id: int) -> Response:
    """Show a forward: the request, every try, and what the receiver answered."""
    state = get_state()
    with reading(state.database) as read:
        details = read_forward(read, state, forward_id)
    if details is None:
        raise NotFound(f"There is no forward {forward_id}; it may have been purged.")
    return page("forward.html", details=details, row=details.row, problem=problem_said(), resendable=RESENDABLE)


def resend_one(forward_id: int) -> AnyResponse:
    """Send a forward again, and redirect to its page."""
    check_form()
    problem = None
    try:
        replay_forward(get_state(), forward_id, by=person())
    except ForwardNotFound as error:
        raise NotFound(error.message) from error
    except WebhookError as error:
        problem = signed("problem", error.message)
    return redirect(url_for(".forward", forward_id=forward_id, problem=problem), 303)


def count_resend() -> Response:
    """Count the forwards of a state, and to one URL, that could be sent again."""
    state, status, like = get_state(), request.args.get("status", RESENDABLE[0]), cursor(request.args, "like")
    if status not in RESENDABLE:
        raise BadRequest("Only dead and delivered forwards can be sent again.")
    with reading(state.database) as read:
        if like is not None and url_of(read, state, like) is None:
            raise NotFound("There is no such forward; it may have been purged.")
        plan = plan_resend(read, state, status=status, like=like)
    can_go = plan.order.total and has_secret_key()
    order = signed("resend", plan.order.to_json()) if can_go else None
    return page("resend.html", plan=plan, order=order)


def resend_many() -> Response:
    """Make the next chunk of the counted forwards wait to be sent again."""
    check_form()
    order = ResendOrder.from_json(read_signed("resend", request.form.get("order", "")))
    order, is_finished = carry_out_resend(get_state(), order, by=person())
    return page(
        "resent.html",
        order=order,
        is_finished=is_finished,
        next=None if is_finished else signed("resend", order.to_json()),
    )
