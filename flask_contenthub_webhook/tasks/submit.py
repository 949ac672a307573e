"""Submit, retry and cancel tasks.

``submit`` only writes the row, because the real creator's call blocks until the work is done. After the commit, a
thread of this process or the scheduler's sweep hands it to the creator (:mod:`.handover`).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import current_app, has_request_context, request
from sqlalchemy import event as sa_event
from sqlalchemy.orm import Session

from ..config.parsers import LONGEST_SECONDS, base_url
from ..core.forward_targets import ForwardTarget, read_targets
from ..core.received import Outcome, ReceivedEvent, Source
from ..core.state_machine import Trigger
from ..core.trace_headers import current_traceparent
from ..engine.apply import apply_event
from ..errors import ConfigurationError
from ..runtime.tracing import traced
from .arguments import MAX_RETRIES, check_flag, check_host_fields, check_number, check_storable, check_texts, text_list
from .handover import submit_next

if TYPE_CHECKING:
    from ..creators.registry import Registered
    from ..runtime.state import WebhookState

__all__ = ["cancel", "retry", "submit"]

_WAITING = "contenthub_webhook_submitted"


def submit(  # noqa: D417 - hosts read this as ContentHubWebhook.submit, without the state
    state: WebhookState,
    /,
    *,
    creator: str | None = None,
    topic: str | None = None,
    requirements: str | None = None,
    target_audience: str | None = None,
    keywords: Collection[str] | None = None,
    tone: str | None = None,
    priority: int = 2,
    auto_approve: bool = False,
    callback_url: str | None = None,
    callback_events: Collection[str] = ("completed", "failed"),
    max_retries: int | None = None,
    timeout: float | None = None,
    forward_to: Iterable[str | Mapping[str, Any] | ForwardTarget] = (),
    commit: bool = True,
    task_fields: Mapping[str, Any] | None = None,
    **creator_options: Any,
) -> Any:
    """Write a new task into ``db.session``; it is handed to the creator right after the commit.

    Args:
        creator: the name of the service in ``Creators``; needed if there are several.
        topic: what to write about, at most 500 characters.
        requirements: how to write it.
        target_audience: whom to write for, at most 500 characters.
        keywords: words that should appear.
        tone: for example ``professional``, at most 100 characters.
        priority: 1 (low) to 4 (urgent).
        auto_approve: for the host's handlers; the extension only keeps it.
        callback_url: where the creator reports, instead of WEBHOOK_CALLBACK_BASE_URL: another base, or a whole URL
            with ``{task_id}`` in it, for a gateway. ``attempt`` and ``token`` are added.
        callback_events: the event types to request.
        max_retries: attempts after the first; None takes WEBHOOK_MAX_RETRIES.
        timeout: seconds that one attempt may take; None takes WEBHOOK_TASK_TIMEOUT.
        forward_to: where the task's events are forwarded to, in addition to WEBHOOK_FORWARD_URLS: URLs, or targets
            with filters, see :class:`.ForwardTarget`. It takes precedence for a URL that both name.
        commit: False leaves the row in the caller's transaction; it is handed over once that commits.
        task_fields: columns of the host's own task model, such as ``{"account_id": 7}``.
        **creator_options: further parameters, under the creator's own names.

    Returns:
        The new task, in ``db.session``.

    Raises:
        ConfigurationError: there is no creator, no base URL for callbacks, or no secret to forward with.
        ValueError: a value cannot be stored, or there is no such creator; the message names it.
    """
    chosen = _creator_named(state, creator)
    check_number("priority", priority, 1, 4, words="1 (low), 2, 3 or 4 (urgent)")
    check_flag("auto_approve", auto_approve)
    if max_retries is not None:
        check_number("max_retries", max_retries, 0, MAX_RETRIES)
    if timeout is not None:
        check_number("timeout", timeout, 1, LONGEST_SECONDS, whole=False)
    texts = {"topic": topic, "requirements": requirements, "target_audience": target_audience, "tone": tone}
    check_texts(state.store.tasks, **texts, callback_url=callback_url)
    given = {
        **texts,
        "keywords": None if keywords is None else text_list("keywords", keywords),
        "callback_events": text_list("callback_events", callback_events),
        "creator_options": creator_options or None,
        "forward_to": _forward_to(state, forward_to),
    }
    columns = check_host_fields(state.store.tasks, task_fields)
    check_storable(**given, callback_url=callback_url, task_fields=columns)
    session = state.database.db.session()
    now, task_id = state.store.now(session), str(uuid.uuid4())
    with traced(state.tracing, "submit task", "producer", nested=True, task_id=task_id):
        task = state.task_model(
            **columns,
            **given,
            task_id=task_id,
            creator_name=chosen.column,
            creator_task_id=str(uuid.uuid4()),
            priority=priority,
            auto_approve=auto_approve,
            max_retries=max_retries,
            timeout_seconds=None if timeout is None else round(timeout),
            callback_url=_callback_url(state, chosen, task_id, callback_url),
            traceparent=current_traceparent(),
            next_submit_at=now,
            next_poll_at=now + chosen.settings.poll_grace,
            deadline_at=now + (state.settings.task_timeout if timeout is None else timedelta(seconds=timeout)),
            created_at=now,
            updated_at=now,
        )
        session.add(task)
        session.info.setdefault(_WAITING, []).append(state)
        if not sa_event.contains(session, "after_commit", _hand_over_what_was_committed):
            sa_event.listen(session, "after_commit", _hand_over_what_was_committed)
        if not state.settings.submit_threads:
            state.store.inbox.notify(session)  # a scheduler will hand it over
        if commit:
            session.commit()
    return task


def _hand_over_what_was_committed(session: Session) -> None:
    if session.get_nested_transaction() is None:  # releasing a savepoint is not a commit
        for state in session.info.pop(_WAITING, ()):
            state.look_again()
            state.submit_threads.submit(submit_next, state)


def retry(state: WebhookState, task_id: str) -> Outcome:
    """Give a failed, timed-out or cancelled task another attempt, at once. Call it outside a transaction.

    Raises:
        TaskNotFound: there is no such task.
        TransitionRefused: the task is open or completed.
    """
    applied = apply_event(state, ReceivedEvent.internal(Trigger.RETRY, task_id, Source.HOST, state.clock()))
    state.look_again()
    state.submit_threads.submit(submit_next, state)
    return applied


def cancel(state: WebhookState, task_id: str) -> Outcome:
    """Cancel an open task, and then tell the creator, which may continue and report all the same.

    Raises:
        TaskNotFound: there is no such task.
        TransitionRefused: the task has ended in another way.
    """
    return apply_event(state, ReceivedEvent.internal(Trigger.CANCELLED, task_id, Source.HOST, state.clock()))


def _creator_named(state: WebhookState, name: object) -> Registered:
    entries = state.registry.entries
    if not entries:
        raise ConfigurationError(
            "There is no creator to submit to: set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to "
            "init_app."
        )
    if name is None and len(entries) == 1:
        return entries[0]
    for entry in entries:
        if name is not None and name in {entry.column, entry.name}:
            return entry
    raise ValueError(f"creator is {name!r}; it must be one of {', '.join(entry.name for entry in entries)}.")


def _callback_url(state: WebhookState, creator: Registered, task_id: str, explicit: str | None) -> str | None:
    """Build it from the argument, WEBHOOK_CALLBACK_BASE_URL, or (in debug only) the root of the current request."""
    settings, sender = creator.settings, state.registry.url_name(creator)
    if not settings.enabled:
        return None  # callbacks would be refused; such tasks are only polled
    base = explicit if explicit is not None else settings.callback_base_url
    if base is None and current_app.debug and has_request_context():
        base = request.root_url
    if base is not None and (urlsplit(base).scheme not in {"http", "https"} or not urlsplit(base).hostname):
        raise ValueError(f"callback_url is {base!r}; it must be an absolute http or https URL.")
    if base is not None and "{task_id}" in base:
        url = settings.callback_urls.address(base.replace("{task_id}", task_id), task_id, 1, sender)
    else:
        url = settings.callback_urls.build(task_id, 1, base_url=_checked_base(base), sender=sender)
    check_texts(state.store.tasks, callback_url=url)
    return url


def _checked_base(base: str | None) -> str | None:
    try:
        return base_url(base)
    except ValueError as error:
        raise ValueError(f"callback_url is {base!r}; it {error}, or hold {{task_id}}.") from None


def _forward_to(
    state: WebhookState, given: Iterable[str | Mapping[str, Any] | ForwardTarget]
) -> list[dict[str, Any]] | None:
    try:
        targets = read_targets(given)
    except ValueError as error:
        raise ValueError(f"forward_to {error}.") from None
    if targets and not state.settings.forward_secrets:
        raise ConfigurationError(
            "WEBHOOK_FORWARD_SECRET is not set, and nothing is forwarded unsigned. `flask webhook secret` makes one."
        )
    return [target.as_json() for target in targets] or None
