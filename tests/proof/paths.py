"""The paths on which a process is ended: each from the state before, by one call, to what must be true in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask_contenthub_webhook.contrib.celery import TASK_NAME
from flask_contenthub_webhook.engine.listen import NotifyListener
from flask_contenthub_webhook.engine.worker import Worker
from flask_contenthub_webhook.runtime.state import CELERY_KEY
from flask_contenthub_webhook.signals import delivery_processed
from tests.support.host import Host, completed, custom, failed, progress
from tests.support.submission import cancel, reconcile, retry, submit, sweep

from .crash_world import World
from .effects import CUSTOM

__all__ = ["PATHS", "Path"]

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Path:
    """One way through the package.

    Args:
        name: for people.
        prepare: makes the tasks, and returns what the act needs to know.
        act: what the process does that ends.
        ends: the states in which the tasks may be in the end.
        leaves: the events of which there must be a row when it has ended by itself.
        again: what the caller does again, since it got no answer; it returns what is wrong.
        processing: the mode of the application that ends.
        keeps_names: of the service.
        finds: of the service.
        has_history: False if the act deletes history.
        first_only: threads that look again and again.
        by_celery: it happens in the application with Celery.
        away: seconds until the next process comes.
    """

    name: str
    prepare: Callable[[World], Any]
    act: Callable[[Host, Any], object]
    ends: frozenset[str] = frozenset({"completed"})
    leaves: tuple[str, ...] = ()
    again: Callable[[Host, Any], object] | None = None
    processing: str = "inline"
    keeps_names: bool = True
    finds: bool = True
    has_history: bool = True
    first_only: frozenset[str] = frozenset()
    by_celery: bool = False
    away: float = 0.0


# --- before ------------------------------------------------------------------------------------------------------


def _submitted(world: World, **values: Any) -> str:
    """A task whose job runs."""
    task_id = submit(world.observer, max_retries=1, **values)
    assert sweep(world.observer).outcomes == {"submitted": 1}
    return task_id


def _done(world: World) -> str:
    """A task whose job is done, and whose callback comes now."""
    task_id = _submitted(world)
    for job in world.books.jobs:
        if job.task_id == task_id:
            world.books.note("completed", job.name)
    return task_id


def _two(world: World) -> list[str]:
    return [_done(world), _submitted(world)]


def _pending(world: World) -> str:
    return submit(world.observer, max_retries=1)


def _only_attempt(world: World) -> str:
    return submit(world.observer, max_retries=0)


def _next_attempt(world: World) -> str:
    """A task that waits for its second submission, and whose first job is over."""
    task_id = _submitted(world)
    world.books.note("failed", world.books.jobs[-1].name)
    assert world.observer.post(task_id, failed(task_id), attempt=1).status_code == 200
    world.observer.clock.advance(200)
    return task_id


def _waiting(world: World) -> str:
    """A task whose completion and progress wait in the inbox."""
    task_id = _done(world)
    host = world.prepare(world.observer, processing="worker")
    for event in (progress(task_id, 50), completed(task_id, "completed:one")):
        assert host.post(task_id, event, attempt=1).status_code == 202
    world.prepare(world.observer)
    return task_id


def _failed_once(world: World) -> str:
    """A task whose completion waits for its second try."""
    task_id = _done(world)
    world.observer.publisher.broken = True
    assert world.observer.post(task_id, completed(task_id, "completed:one"), attempt=1).status_code == 500
    world.observer.publisher.broken = False
    return task_id


def _failed_once_and_due(world: World) -> str:
    task_id = _failed_once(world)
    world.observer.clock.advance(60)
    return task_id


def _to_replay(world: World) -> tuple[str, int]:
    task_id = _failed_once(world)
    return task_id, int(world.observer.deliveries(task_id)[-1].id)


def _due_for_a_poll(world: World) -> str:
    task_id = _submitted(world)
    world.observer.clock.advance(300)
    return task_id


def _polled_when_done(world: World) -> str:
    task_id = _done(world)
    world.observer.clock.advance(300)
    return task_id


def _overdue(world: World) -> str:
    task_id = _submitted(world)
    world.observer.clock.advance(4_000)
    return task_id


def _gone(world: World) -> str:
    """A task that failed, and that a person wants to have tried once more."""
    task_id = _submitted(world)
    world.books.note("failed", world.books.jobs[-1].name)
    assert world.observer.post(task_id, failed(task_id, retryable=False), attempt=1).status_code == 200
    return task_id


def _old(world: World) -> str:
    """A task that was completed a year ago."""
    task_id = _done(world)
    host = world.observer
    assert host.post(task_id, progress(task_id, 50), attempt=1).status_code == 200
    for _ in range(2):
        assert host.post(task_id, completed(task_id, "completed:one"), attempt=1).status_code == 200
    with host.app.app_context():
        host.webhook.send_due_forwards()
    host.clock.advance(400 * _DAY)
    return task_id


def _with_a_forward(world: World) -> str:
    task_id = _done(world)
    assert world.observer.post(task_id, completed(task_id, "completed:one"), attempt=1).status_code == 200
    return task_id


# --- acts --------------------------------------------------------------------------------------------------------


def _post(event: Callable[[str], Any]) -> Callable[[Host, str], object]:
    def act(host: Host, task_id: str) -> None:
        status = host.post(task_id, event(task_id), attempt=1).status_code
        assert status in {200, 202}, status

    return act


def _post_batch(host: Host, tasks: list[str]) -> None:
    first, second = tasks
    events = [progress(second, 30), completed(first, "completed:one"), progress(second, 60)]
    batch = [{**event, "token": host.token(event["taskId"], 1), "attempt": 1} for event in events]
    answer = host.post_batch(batch)
    assert answer.status_code == 200, answer.get_json()
    verdicts = [item.get("outcome") for item in answer.get_json()["results"]]
    assert all(verdicts), answer.get_json()


def _post_to_a_broken_handler(host: Host, task_id: str) -> None:
    host.publisher.broken = True
    status = host.post(task_id, completed(task_id, "completed:one"), attempt=1).status_code
    host.publisher.broken = False
    assert status == 500, status


def _work(host: Host, task_id: str) -> None:
    """Run a worker until it has applied the last event."""
    worker = Worker(host.state, threads=1)

    def stop(app: Any, *, delivery: Any, **extra: Any) -> None:
        if delivery.event == "completed":
            worker.stop()

    host.connect(delivery_processed, stop)
    worker.run()


def _listen(host: Host, task_id: str) -> None:
    with NotifyListener(host.state):
        host.retry()


def _celery_task(host: Host, task_id: str) -> None:
    engine = host.app.extensions[CELERY_KEY]
    engine._register(engine.celery_app)
    engine.celery_app.tasks[TASK_NAME](task_id)


def _sweep(host: Host, _: object) -> None:
    sweep(host)


def _reconcile(host: Host, _: object) -> None:
    reconcile(host)


def _retry_due(host: Host, _: object) -> None:
    host.retry()


def _replay(host: Host, known: tuple[str, int]) -> None:
    host.replay(known[1])


def _send_forwards(host: Host, _: object) -> None:
    with host.app.app_context():
        host.webhook.send_due_forwards()


def _purge(host: Host, _: object) -> None:
    with host.app.app_context():
        host.webhook.purge()


def _purge_again(host: Host, task_id: str) -> list[str]:
    _purge(host, task_id)
    wrong = []
    with host.app.app_context():
        if again := host.webhook.purge():
            wrong.append(f"a purge left {again} rows to the next one")
    answer = host.post(task_id, completed(task_id, "completed:one"), attempt=1).get_json()
    if answer.get("outcome") != "duplicate":
        wrong.append(f"what was purged counts as new: {answer}")
    return wrong


def _check_alerts(host: Host, _: object) -> None:
    with host.app.app_context():
        host.webhook.check_alerts()


def _check_alerts_again(host: Host, _: object) -> list[str]:
    with host.app.app_context():
        host.webhook.check_alerts()
        raised = {alert.name: alert.raised for alert in host.webhook.alerts()}
    return [] if raised["failure_rate"] else [f"the alert is not raised: {raised}"]


def _submit_what_is_not_there(host: Host, _: object) -> None:
    """Somebody who was shown an error, and does not find the task, submits it again."""
    if not host.tasks():
        submit(host, max_retries=1)


def _submit_and_hand_over(host: Host, _: object) -> None:
    submit(host, max_retries=1)
    sweep(host)


def _completed(task_id: str) -> Any:
    return completed(task_id, "completed:one")


def _progress(task_id: str) -> Any:
    return progress(task_id, 50)


def _custom(task_id: str) -> Any:
    return custom(task_id, CUSTOM)


def _callback(name: str, event: Callable[[str], Any], prepare: Callable[[World], Any], **more: Any) -> list[Path]:
    act = _post(event)
    return [
        Path(f"{name}, never sent again", prepare, act, **more),
        Path(f"{name}, sent again", prepare, act, again=act, **more),
    ]


_ANY = frozenset({"completed", "failed", "timeout"})

PATHS = (
    *_callback("callback completed", _completed, _done, leaves=("completed",)),
    *_callback("callback failed", failed, _submitted, ends=_ANY, leaves=("failed",)),
    *_callback("callback progress", _progress, _submitted, leaves=("progress",)),
    *_callback("callback of a custom type", _custom, _submitted, leaves=(CUSTOM,)),
    Path(
        "callback whose handler fails", _done, _post_to_a_broken_handler, again=_post(_completed), leaves=("completed",)
    ),
    Path("batch, never sent again", _two, _post_batch, leaves=("progress", "progress", "completed")),
    Path("batch, sent again", _two, _post_batch, again=_post_batch, leaves=("progress", "progress", "completed")),
    *_callback("accepted for the inbox", _completed, _done, processing="worker", leaves=("completed",)),
    Path(
        "batch for the inbox",
        _two,
        _post_batch,
        again=_post_batch,
        processing="worker",
        leaves=("progress", "progress", "completed"),
    ),
    Path("worker's thread", _waiting, _retry_due),
    Path("worker", _waiting, _work, first_only=frozenset({"MainThread"})),
    Path("listening for work", _waiting, _listen),
    Path("another try", _failed_once_and_due, _retry_due),
    Path("Celery task", _waiting, _celery_task, by_celery=True, processing="celery"),
    Path("submit", lambda world: None, _submit_and_hand_over, leaves=("submitted",), again=_submit_what_is_not_there),
    Path("sweep", _pending, _sweep, leaves=("submitted",)),
    Path("sweep, the service has its own names", _pending, _sweep, keeps_names=False, leaves=("submitted",)),
    Path(
        "sweep, the service cannot be asked",
        _pending,
        _sweep,
        keeps_names=False,
        finds=False,
        ends=_ANY,
        leaves=("submitted",),
    ),
    Path("sweep, second attempt", _next_attempt, _sweep, leaves=("submitted", "submitted")),
    Path("sweep, the next process comes a day later", _only_attempt, _sweep, ends=_ANY, away=_DAY),
    Path("sweep, own names, the next a day later", _only_attempt, _sweep, keeps_names=False, ends=_ANY, away=_DAY),
    Path("worker's thread, the next a day later", _waiting, _retry_due, away=_DAY),
    Path("reconcile, the job is done", _polled_when_done, _reconcile, leaves=("completed",)),
    Path("reconcile, the job is open", _due_for_a_poll, _reconcile),
    Path("reconcile, the time is up", _overdue, _reconcile, ends=_ANY, leaves=("timed_out",)),
    Path("cancel", _submitted, cancel, ends=frozenset({"cancelled", "completed"}), leaves=("cancelled",)),
    Path("cancel, told again", _submitted, cancel, ends=frozenset({"cancelled"}), leaves=("cancelled",), again=cancel),
    Path("cancel, the next process comes a day later", _submitted, cancel, ends=_ANY | {"cancelled"}, away=_DAY),
    Path("retry", _gone, retry, ends=frozenset({"completed", "failed"}), leaves=("retry",)),
    Path("replay", _to_replay, _replay, leaves=("completed", "completed")),
    Path("forward", _with_a_forward, _send_forwards),
    Path("purge", _old, _purge, again=_purge_again, has_history=False),
    Path("alert check", _failed_once, _check_alerts, again=_check_alerts_again),
)
