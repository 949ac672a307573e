"""The pages. Each reads a bounded number of rows in one transaction."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Blueprint, Response, redirect, request, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.wrappers import Response as AnyResponse

from ...core.events import BUILT_IN_EVENTS
from ...core.received import Source
from ...core.redaction import redacted_body
from ...core.state_machine import Verdict
from ...engine.replay import replay
from ...engine.senders import is_in_own_words
from ...errors import DatabaseUnavailable, DeliveryNotFound, HandlerFailed, WebhookError
from ...runtime.state import get_state
from ...storage.failure_log import log_failure
from ...storage.queries import id_of, reading
from .access import NotPermitted, person
from .bulk import Order, carry_out, make_plan
from .charts import Chart, stacked_bars
from .curl import curl_command
from .details import read_delivery_details
from .failure_views import acknowledge_failure, failures
from .filters import RANGES, FilterForm, cursor, is_wordy, read_filter_form
from .forms import check_form, has_secret_key, problem_said, read_signed, signed
from .forward_views import count_resend, forward, resend_many, resend_one
from .forwards import STATES, forwards_by_url, read_forwards_page, url_of
from .listing import deliveries_newer_than, read_deliveries_page
from .overview import ARRIVED, EMPTY, KINDS, VERDICTS, Overview, next_runs, read_backlog, read_overview
from .ping import EXPECTED, send_test_event
from .rendering import fragment, page
from .search import Page
from .task_views import add_task_views
from .tasks import service_names

__all__ = ["add_views"]

logger = logging.getLogger(__name__)

_OVERVIEW_RANGES = ("hour", "today", "day", "week", "all")
_ID = "<int(min=0, max=9223372036854775807):delivery_id>"
_FORWARD = _ID.replace("delivery", "forward")


def add_views(blueprint: Blueprint) -> None:
    """Add the pages to a blueprint."""
    for rule, view, method in (
        ("/", overview, "GET"),
        ("/deliveries", deliveries, "GET"),
        ("/deliveries/new", new_deliveries, "GET"),
        (f"/deliveries/{_ID}", delivery, "GET"),
        (f"/deliveries/{_ID}/body", body, "GET"),
        (f"/deliveries/{_ID}/replay", replay_one, "POST"),
        ("/failures", failures, "GET"),
        ("/failures", acknowledge_failure, "POST"),
        ("/forwards", forwards, "GET"),
        (f"/forwards/{_FORWARD}", forward, "GET"),
        (f"/forwards/{_FORWARD}/resend", resend_one, "POST"),
        ("/forwards/resend", count_resend, "GET"),
        ("/forwards/resend", resend_many, "POST"),
        ("/replay", dry_run, "GET"),
        ("/replay", replay_many, "POST"),
        ("/find", find, "GET"),
        ("/test-event", test_event, "POST"),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=[method])
    add_task_views(blueprint)
    blueprint.register_error_handler(HTTPException, _refused)
    blueprint.register_error_handler(SQLAlchemyError, _database_failed)
    blueprint.register_error_handler(DatabaseUnavailable, _database_failed)


# --- the overview --------------------------------------------------------------------------------------------


def overview() -> Response:
    """Show the numbers of a period, the backlog and the raised alerts."""
    state, now = get_state(), get_state().now()
    form = read_filter_form(request.args, now, default_range="day")
    since, until = form.criteria.since, form.criteria.until
    with reading(state.database) as read:
        further = "further" in request.args
        numbers = EMPTY if form.problems else read_overview(read, state, since, until, now, further=further)
        backlog = read_backlog(read, state)
    return page(
        "overview.html",
        status=400 if form.problems else 200,
        numbers=numbers,
        backlog=backlog,
        jobs=next_runs(state),
        kinds=KINDS,
        chart=_chart(numbers),
        links=partial(_link_of, form, numbers),
        form=form,
        ranges={name: RANGES[name] for name in _OVERVIEW_RANGES},
    )


def _chart(numbers: Overview) -> Chart | None:
    if not numbers.hours:
        return None
    form = "%H:%M" if numbers.hours[0].start.date() == numbers.hours[-1].start.date() else "%d %b %H:%M"
    labels = [f"{hour.start:{form}}" for hour in numbers.hours]
    return stacked_bars(labels, {kind: [hour.counts[kind] for hour in numbers.hours] for kind in KINDS})


def _link_of(form: FilterForm, numbers: Overview, place: int | None, kind: str | None = None) -> str:
    """Return the URL of the deliveries that a tile counts, or with a place a bar of the chart."""
    given: dict[str, Any] = {"source": ARRIVED, "verdict": () if kind is None else VERDICTS[kind]}
    if place is not None:
        start = numbers.hours[place].start
        end = min(start + numbers.width, form.criteria.until or datetime.max.replace(tzinfo=UTC))
        begin = start if numbers.since is None or numbers.since >= end else max(start, numbers.since)
        times = (at.replace(tzinfo=None).isoformat(timespec="milliseconds") for at in (begin, end))
        given |= {"range": "custom"} | dict(zip(("from", "to"), times, strict=True))
    elif form.range != "all":
        given |= {key: value for key, value in form.given.items() if key in {"from", "to"}} | {"range": form.range}
    return url_for(".deliveries", **given)


# --- deliveries ----------------------------------------------------------------------------------------------


def deliveries() -> AnyResponse:
    """List deliveries."""
    state = get_state()
    form = read_filter_form(request.args, state.now())
    if is_wordy(request.args, form):
        return redirect(url_for(".deliveries", **form.given), 303)
    before, after = cursor(request.args, "before"), cursor(request.args, "after")
    results = Page([])
    if not form.problems:
        with reading(state.database) as read:
            results = read_deliveries_page(read, state.delivery_model, form, before=before, after=after)
    is_first = before is None and results.newer is None
    return page(
        "deliveries.html",
        status=400 if form.problems else 200,
        form=form,
        page=results,
        is_first=is_first,
        went_up=after is not None,
        tested=request.args.get("tested", "")[:64],
        expected=EXPECTED,
        live=url_for(".new_deliveries", **form.given) if is_first and form.criteria.until is None else None,
        **_choices(),
    )


def new_deliveries() -> Response:
    """Return the deliveries after a known one, as rows for the table in the browser."""
    state, after = get_state(), cursor(request.args, "after")
    form = read_filter_form(request.args, state.now())
    if after is None or form.problems:
        raise BadRequest("`after` must be the id of the newest known delivery.")
    with reading(state.database) as read:
        rows = deliveries_newer_than(read, state.delivery_model, form, after)
    return Response(fragment("new_deliveries.html", rows=rows), mimetype="text/html") if rows else Response(status=204)


def delivery(delivery_id: int) -> Response:
    """Show a delivery, and what came of its replay."""
    state = get_state()
    with reading(state.database) as read:
        details = read_delivery_details(read, state, delivery_id)
    if details is None:
        raise NotFound(f"There is no delivery {delivery_id}; it may have been purged.")
    can_be_replayed = (
        details.size > 0
        and (details.row["task_id"] is not None or is_in_own_words(details.row))
        and (details.row["verdict"] != Verdict.REJECTED or details.row["scheme"] is not None)
    )
    return page(
        "delivery.html",
        problem=problem_said(),
        details=details,
        row=details.row,
        curl=curl_command(state.settings, details.row, details.beginning, details.size) if details.size else None,
        can_be_replayed=can_be_replayed,
        was_replayed="replayed" in request.args,
    )


def body(delivery_id: int) -> Response:
    """Send the body as a download, so that the browser does not show it."""
    state, model = get_state(), get_state().delivery_model
    with reading(state.database) as read:
        row = read.first(state.database.db.select(model.body).where(id_of(model) == delivery_id))
    if row is None or not row[0]:
        raise NotFound("There is no such delivery, or it has no body.")
    response = Response(redacted_body(bytes(row[0])), mimetype="application/octet-stream")
    response.headers["Content-Disposition"] = f"attachment; filename=delivery-{delivery_id}.bin"
    return response


def replay_one(delivery_id: int) -> AnyResponse:
    """Replay a delivery, and redirect to its replay, whether that was applied or failed again."""
    check_form()
    try:
        new_id: int | None = replay(get_state(), delivery_id, by=person()).delivery_id
    except DeliveryNotFound as error:
        raise NotFound(error.message) from error
    except HandlerFailed as error:
        new_id = error.delivery_id
    except WebhookError as error:
        return redirect(url_for(".delivery", delivery_id=delivery_id, problem=signed("problem", error.message)), 303)
    return redirect(url_for(".delivery", delivery_id=new_id or delivery_id, replayed=1), 303)


# --- forwards ------------------------------------------------------------------------------------------------


def forwards() -> Response:
    """List forwards."""
    state, status, like = get_state(), request.args.get("status", ""), cursor(request.args, "like")
    if status not in {"", *STATES}:
        raise BadRequest("There is no such state.")
    before, after = cursor(request.args, "before"), cursor(request.args, "after")
    with reading(state.database) as read:
        url = None if like is None else url_of(read, state, like)
        if like is not None and url is None:
            raise NotFound("There is no such forward; it may have been purged.")
        results = read_forwards_page(read, state, status=status, url=url, before=before, after=after)
        by_url = forwards_by_url(read, state)
    given = {**({"status": status} if status else {}), **({"like": like} if like is not None else {})}
    return page("forwards.html", page=results, by_url=by_url, states=STATES, selected=status, like=like, given=given)


# --- bulk replay ---------------------------------------------------------------------------------------------


def dry_run() -> AnyResponse:
    """Count the deliveries that match a filter and could be replayed."""
    state = get_state()
    form = read_filter_form(request.args, state.now())
    if is_wordy(request.args, form):
        return redirect(url_for(".dry_run", **form.given), 303)
    plan = None
    if not form.is_empty and not form.problems:
        with reading(state.database) as read:
            plan = make_plan(read, state.delivery_model, form, after=cursor(request.args, "after") or 0)
    order = (
        signed("order", plan.order.to_json()) if plan is not None and plan.order.total and has_secret_key() else None
    )
    return page("replay.html", status=400 if form.problems else 200, form=form, plan=plan, order=order, **_choices())


def replay_many() -> Response:
    """Replay the next chunk of the counted deliveries."""
    check_form()
    order = Order.from_json(read_signed("order", request.form.get("order", "")))
    order, is_finished = carry_out(get_state(), order, by=person())
    return page(
        "replayed.html",
        order=order,
        is_finished=is_finished,
        next=None if is_finished else signed("order", order.to_json()),
    )


# --- the rest ------------------------------------------------------------------------------------------------


def find() -> AnyResponse:
    """Redirect to the delivery with a number, or to the task with an id."""
    text = request.args.get("q", "").strip()
    if not text:
        return redirect(url_for(".deliveries"), 303)
    delivery_id = cursor({"id": text}, "id")
    if delivery_id is not None:
        return redirect(url_for(".delivery", delivery_id=delivery_id), 303)
    return redirect(url_for(".task", id=text), 303)


def test_event() -> AnyResponse:
    """Send a test event, and show the list with it."""
    check_form()
    state = get_state()
    return redirect(url_for(".deliveries", tested=send_test_event(state, state.now())), 303)


def _choices() -> dict[str, Any]:
    """Return the choices of the filter form."""
    return {
        "ranges": RANGES,
        "verdicts": [verdict.value for verdict in Verdict],
        "sources": [source.value for source in Source],
        "services": service_names(get_state().registry),
        "events": list(dict.fromkeys([*BUILT_IN_EVENTS, *get_state().custom_events])),
    }


def _refused(error: HTTPException) -> AnyResponse:
    if error.code is None or error.response is not None:  # the host's permission answered by itself
        return error.get_response()
    bare = isinstance(error, NotPermitted)
    return page("message.html", status=error.code, title=error.name, message=error.description or "", bare=bare)


def _database_failed(error: SQLAlchemyError | DatabaseUnavailable) -> Response:
    cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else None
    log_failure(get_state().database, logger, "A history page could not be read.", cause or error)
    return page(
        "message.html",
        status=503,
        title="The database did not answer",
        message="The log says why. `flask webhook doctor` says whether the tables are up to date.",
    )
