"""The events whose orders are tried, each as its real caller makes it, and the tasks that they meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flask_contenthub_webhook.core.state_machine import Trigger, Verdict
from flask_contenthub_webhook.creators import RemoteState
from flask_contenthub_webhook.errors import TransitionRefused
from tests.support.host import Host, completed, custom, failed, progress
from tests.support.submission import cancel, reconcile, retry, submit, sweep

from .effects import CUSTOM
from .service import Books, LedgerCreator

__all__ = ["CALLBACKS", "KINDS", "Answer", "Kind", "base_of", "bring_up_to", "make_task"]


def base_of(kinds: tuple[str, ...]) -> str:
    """Return the state of the task before some events: one in which each of them can have its effect."""
    if "retry" in kinds:
        return "failed"
    return "pending" if "submitted" in kinds else "submitted"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an actor was told.

    Args:
        words: for a story.
        delivery_id: the history row that it was told of.
        verdict: the verdict that it was told.
        is_trouble: True for an answer that no caller should get here.
        is_left: True if the event was left for later, as it is where another one of its kind waits in the inbox.
    """

    words: str
    delivery_id: int | None = None
    verdict: str | None = None
    is_trouble: bool = False
    is_left: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of event.

    Args:
        trigger: what the state machine calls it.
        act: makes it happen to a task, with the id of its parked delivery.
        source: of its history row.
        event: of its history row.
        says: what the creator says of the job when this actor asks it.
        body: the callback, for those that can wait in the inbox.
        is_one_transaction: True if a serial run explains every result.
    """

    trigger: Trigger
    act: Callable[[Host, str, int | None], Answer]
    source: str
    event: str
    says: RemoteState = RemoteState.OPEN
    body: Callable[[str], Any] | None = None
    is_one_transaction: bool = True


def _posted(body: Callable[[str], Any]) -> Callable[[Host, str, int | None], Answer]:
    def act(host: Host, task_id: str, parked: int | None) -> Answer:
        response = host.post(task_id, body(task_id), attempt=1)
        said = response.get_json()
        is_trouble = response.status_code not in {200, 202}
        words = said.get("outcome") or said["error"]["code"]
        return Answer(f"{response.status_code} {words}", said.get("delivery_id"), said.get("outcome"), is_trouble)

    return act


def _told(act: Callable[[Host, str, int | None], Any]) -> Callable[[Host, str, int | None], Answer]:
    def told(host: Host, task_id: str, parked: int | None) -> Answer:
        try:
            outcome = act(host, task_id, parked)
        except TransitionRefused as refusal:
            return Answer(f"refused: {refusal.message}")
        return Answer(outcome.verdict.value, outcome.delivery_id, outcome.verdict.value)

    return told


def _reported(act: Callable[[Host], Any]) -> Callable[[Host, str, int | None], Answer]:
    def reported(host: Host, task_id: str, parked: int | None) -> Answer:
        report = act(host)
        said = f"claimed {report.claimed}"
        if outcomes := dict(getattr(report, "applied", None) or getattr(report, "outcomes", {})):
            said += f", {', '.join(f'{name} {count}' for name, count in outcomes.items())}"
        is_trouble = bool(report.trouble or "interrupted" in outcomes)
        return Answer(said, is_trouble=is_trouble, is_left=bool(getattr(report, "errors", 0)))

    return reported


def _sweep_one(host: Host) -> Any:
    return sweep(host, limit=1)  # in this thread; for more it uses several


def _completed(task_id: str) -> Any:
    return completed(task_id, "completed:one")


def _completed_differently(task_id: str) -> Any:
    return completed(task_id, "completed:other")


def _failed(task_id: str) -> Any:
    return failed(task_id)


def _progress(task_id: str) -> Any:
    return progress(task_id, 50)


def _custom(task_id: str) -> Any:
    return custom(task_id, CUSTOM)


def _callback(trigger: Trigger, body: Callable[[str], Any], event: str) -> Kind:
    return Kind(trigger, _posted(body), "webhook", event, body=body)


KINDS: dict[str, Kind] = {
    "completed": _callback(Trigger.COMPLETED, _completed, "completed"),
    "completed differently": _callback(Trigger.COMPLETED, _completed_differently, "completed"),
    "failed": _callback(Trigger.FAILED, _failed, "failed"),
    "progress": _callback(Trigger.PROGRESS, _progress, "progress"),
    "custom": _callback(Trigger.CUSTOM, _custom, CUSTOM),
    "cancel": Kind(Trigger.CANCELLED, _told(lambda host, task_id, _: cancel(host, task_id)), "host", "cancelled"),
    "retry": Kind(Trigger.RETRY, _told(lambda host, task_id, _: retry(host, task_id)), "host", "retry"),
    "timed out": Kind(Trigger.TIMED_OUT, _reported(reconcile), "poll", "timed_out", is_one_transaction=False),
    "poll's completed": Kind(
        Trigger.COMPLETED,
        _reported(reconcile),
        "poll",
        "completed",
        says=RemoteState.COMPLETED,
        is_one_transaction=False,
    ),
    "replay": Kind(Trigger.COMPLETED, _told(lambda host, _, parked: host.replay(parked)), "replay", "completed"),
    "submitted": Kind(Trigger.SUBMITTED, _reported(_sweep_one), "response", "submitted", is_one_transaction=False),
}
CALLBACKS = tuple(name for name, kind in KINDS.items() if kind.body is not None)


def make_task(host: Host, books: Books, base: str, *, with_parked: bool) -> tuple[str, int | None]:
    """Make a task as it is before the events, by the ways in which tasks come to be so.

    Args:
        host: the application.
        books: of the service.
        base: the state of the task.
        with_parked: it has a completion that failed as often as it may.

    Returns:
        Its id, and that of the parked delivery.
    """
    books.clear()
    host.state.creator = LedgerCreator(books)
    task_id = submit(host, max_retries=1)
    if base != "pending":
        assert sweep(host).outcomes == {"submitted": 1}
    parked = _park(host, task_id) if with_parked else None
    if base == "failed":
        books.note("failed", books.jobs[-1].name)  # or the service, which is asked, says that the job is open
        assert host.post(task_id, failed(task_id, retryable=False), attempt=1).status_code == 200
    assert host.task(task_id).status == base
    return task_id, parked


def bring_up_to(host: Host, task_id: str, kinds: tuple[str, ...], *, inbox: bool) -> None:
    """Put callbacks into the inbox, in this order, and let the time come at which the events happen."""
    if inbox:
        inline = host.state.settings
        host.state.settings = replace(inline, processing="worker")
        for name in kinds:
            if (body := KINDS[name].body) is not None:
                assert host.post(task_id, body(task_id), attempt=1).status_code == 202
                assert host.deliveries(task_id)[-1].verdict == Verdict.QUEUED
        host.state.settings = inline
    task = host.task(task_id)
    if "timed out" in kinds:
        host.clock.now = max(host.clock.now, task.deadline_at)
    elif "poll's completed" in kinds and task.next_poll_at is not None:
        host.clock.now = max(host.clock.now, task.next_poll_at)
    host.clock.advance(1)


def _park(host: Host, task_id: str) -> int:
    """Let a completion fail as often as it may."""
    host.publisher.broken = True
    assert host.post(task_id, completed(task_id, "completed:parked"), attempt=1).status_code == 500
    for _ in host.state.settings.retry_backoff:
        host.clock.advance(200)
        host.retry()
    host.publisher.broken = False
    (delivery,) = (row for row in host.deliveries(task_id) if row.event == "completed")
    assert delivery.verdict == Verdict.DEAD
    return int(delivery.id)
