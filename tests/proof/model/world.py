"""The world around the hub: a paid service, its messages under way, and what may still go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorAway, CreatorRefused, CreatorUnclear, CreatorUnreachable

from .tape import TAPE

__all__ = ["ATTEMPT_TIME", "Budget", "Message", "PaidJob", "Powers", "Service", "World"]

ATTEMPT_TIME = timedelta(seconds=300)
"""What an attempt may take in the model."""

_Way = tuple[str, Callable[[], Any]]


class Powers(NamedTuple):
    """What the service can do.

    Args:
        own: it takes our name of a job; else it gives its own.
        find: it can look a job up whose submission was not answered.
        idempotent: a second submission under our name starts no second job.
    """

    own: bool = False
    find: bool = False
    idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How often each thing may still happen in a story.

    Args:
        ticks: the time passes until something is due.
        crashes: a process dies.
        losses: the answer to a call, or the request, is lost.
        gateway: a gateway answers 502 for the service.
        away: the service is not reached.
        early: a submission is answered with the result.
        failures: a job fails.
        progress: a job reports progress.
        other_results: a completed job reports another result.
        doubles: a message comes once more.
        forged: somebody without the secret sends a message.
        cancels: the host cancels.
        retries: the host wants another attempt.
        replays: a person replays a delivery.
        broken: the handlers fail at an event.
        purges: the history is purged.
    """

    ticks: int = 0
    crashes: int = 0
    losses: int = 0
    gateway: int = 0
    away: int = 0
    early: int = 0
    failures: int = 0
    progress: int = 0
    other_results: int = 0
    doubles: int = 0
    forged: int = 0
    cancels: int = 0
    retries: int = 0
    replays: int = 0
    broken: int = 0
    purges: int = 0

    def less(self, name: str) -> Budget:
        """Return what is left when one more happens."""
        changed: dict[str, Any] = {name: getattr(self, name) - 1}
        return replace(self, **changed)

    def __str__(self) -> str:
        given = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in given if number)


@dataclass(frozen=True, slots=True)
class PaidJob:
    """A job at the service: its number, the names, the attempt, where it reports, its state, and when it was taken."""

    number: int
    name: str
    ours: str
    attempt: int
    url: str
    state: RemoteState
    at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A callback under way."""

    said: str
    path: str
    body: str
    is_forged: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Everything but the database and the processes.

    Args:
        budget: what may still happen.
        jobs: at the service.
        wire: messages that may still come.
        acknowledged: bodies of messages that were answered 200 or 202.
        is_purged: the history was purged.
        wrongs: promises that were broken at the moment of an event.
    """

    budget: Budget
    jobs: tuple[PaidJob, ...] = ()
    wire: tuple[Message, ...] = ()
    acknowledged: tuple[str, ...] = ()
    is_purged: bool = False
    wrongs: tuple[str, ...] = ()

    def send(self, message: Message) -> World:
        return replace(self, wire=tuple(sorted((*self.wire, message), key=lambda one: (one.said, one.body))))

    def without(self, message: Message) -> World:
        at = self.wire.index(message)
        return replace(self, wire=self.wire[:at] + self.wire[at + 1 :])

    def change_job(self, job: PaidJob, state: RemoteState) -> World:
        return replace(self, jobs=tuple(replace(job, state=state) if one == job else one for one in self.jobs))

    def spend(self, name: str) -> World:
        return replace(self, budget=self.budget.less(name))


def message_of(job: PaidJob, kind: str, task_id: str, *, differs: bool = False) -> Message:
    """Return what a job reports."""
    named = job.ours if job.name == job.ours else task_id
    payload: dict[str, Any] = {"event": kind, "taskId": named, "job": job.number}
    match kind:
        case "completed":
            payload["result"] = {"content": f"result {job.number}" + (" again" if differs else "")}
        case "failed":
            payload["error"] = {"message": "It failed.", "type": "execution_error"}
        case "progress":
            payload["progress"] = {"percentage": 50}
    said = f"the {'other ' if differs else ''}{kind!r} of job {job.number} (attempt {job.attempt})"
    url = urlsplit(job.url)
    return Message(said, f"{url.path}?{url.query}", json.dumps(payload))


class Service:
    """The creator of the model: each call is a step, and goes one of several ways."""

    def __init__(self, powers: Powers) -> None:
        self.keeps_names, self.idempotent = powers.own, powers.idempotent
        self.find = self._find if powers.find else None
        self.powers = powers
        self.world = World(Budget())
        self.now: Callable[[], datetime] = lambda: datetime.min

    def can_find_out(self, job: PaidJob, task: Mapping[str, Any]) -> bool:
        """Whether the hub knows of a job, or can learn of it even if the answer to its submission was lost."""
        known = (task["creator_task_id"], *json.loads(task["earlier_creator_task_ids"] or "[]"))
        return any(self.powers) or job.name in known

    # --- calls -----------------------------------------------------------------------------------------------

    def submit(self, job: Job, *, wait: float) -> Report:
        said = f"submits attempt {job.attempt}"

        def take(ending: Callable[[PaidJob], Any]) -> Callable[[], Any]:
            return lambda: ending(self._take(job))

        def answer(taken: PaidJob) -> Report:
            return Report(state=RemoteState.OPEN, creator_task_id=self._named(taken))

        def early(taken: PaidJob) -> Report:
            self.world = self.world.spend("early").change_job(taken, RemoteState.COMPLETED)
            return self._report(replace(taken, state=RemoteState.COMPLETED))

        ways: list[_Way] = [(f"{said}: the service takes it, and answers", take(answer))]
        budget = self.world.budget
        if budget.early:
            ways.append((f"{said}: the service answers with the result", take(early)))
        if budget.losses:
            lost = self._lost("losses", CreatorUnclear)
            ways += [
                (f"{said}: the service takes it, and its answer is lost", take(lambda _: lost())),
                (f"{said}: the request is lost, and nothing is answered", lost),
            ]
        if budget.gateway:
            away = self._lost("gateway", CreatorAway)
            ways += [
                (f"{said}: the service takes it, and a gateway answers 502", take(lambda _: away())),
                (f"{said}: a gateway answers 502, and nothing arrives", away),
            ]
        if budget.away:
            ways.append((f"{said}: the service is not reached", self._lost("away", CreatorUnreachable)))
        report: Report = TAPE.call(lambda: ways)
        return report

    def status(self, creator_task_id: str) -> Report:
        report: Report = self._ask("is asked about a job", lambda: self._report_on(creator_task_id))
        return report

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        if not self.powers.own:
            return {}  # it has no such query
        names = sorted(creator_task_ids)
        reports: Mapping[str, Report] = self._ask(
            "is asked about jobs by our names", lambda: {name: self._report_on(name) for name in names}
        )
        return reports

    def _find(self, job: Job, *, since: datetime | None = None) -> Report:
        def look() -> Report:
            found = [one for one in self.world.jobs if one.ours == job.creator_task_id]
            return self._report(found[-1]) if found else Report(state=RemoteState.MISSING)

        report: Report = self._ask("is asked whether it has a job", look)
        return report

    def result(self, creator_task_id: str) -> Report:
        report: Report = self._ask("is asked for a result", lambda: self._report_on(creator_task_id))
        return report

    def cancel(self, creator_task_id: str) -> None:
        def stop() -> Any:
            open_ = [job for job in self.world.jobs if job.name == creator_task_id and job.state is RemoteState.OPEN]
            if not open_:
                return CreatorRefused, "There is no such job."
            for job in open_:
                self.world = self.world.change_job(job, RemoteState.CANCELLED)
            return None

        said = "is told to cancel a job"
        ways: list[_Way] = [(f"the service {said}", stop)]
        if self.world.budget.losses:
            lost = self._lost("losses", CreatorUnclear)
            ways += [
                (f"the service {said}, and its answer is lost", lambda: (stop(), lost())[1]),
                (f"the service {said}, and the request is lost", lost),
            ]
        TAPE.call(lambda: ways)

    # --- what happens ----------------------------------------------------------------------------------------

    def _ask(self, said: str, look: Callable[[], Any]) -> Any:
        ways: list[_Way] = [(f"the service {said}", look)]
        if self.world.budget.losses:
            ways.append((f"the service {said}, and its answer is lost", self._lost("losses", CreatorUnclear)))
        return TAPE.call(lambda: ways)

    def _lost(self, budget: str, error: type[Exception]) -> Callable[[], Any]:
        def lose() -> Any:
            self.world = self.world.spend(budget)
            return error, "There was no answer."

        return lose

    def _take(self, asked: Job) -> PaidJob:
        world, now = self.world, self.now()
        same = [job for job in world.jobs if job.ours == asked.creator_task_id]
        if self.powers.idempotent and same:
            return same[0]
        number = len(world.jobs) + 1
        name = asked.creator_task_id if self.powers.own else f"job-{number}"
        taken = PaidJob(
            number, name, asked.creator_task_id, asked.attempt, asked.callback_url or "", RemoteState.OPEN, now
        )
        self.world = replace(world, jobs=(*world.jobs, taken), wrongs=world.wrongs + tuple(self._rivals(taken)))
        return taken

    def _rivals(self, taken: PaidJob) -> Sequence[str]:
        """A second job is paid for while the first is alive: wrong, unless nobody could know, and its time was over."""
        rivals = [job for job in self.world.jobs if job.state is RemoteState.OPEN]
        known = [job for job in rivals if any(self.powers) or taken.at < job.at + ATTEMPT_TIME]
        return [f"Job {taken.number} is taken while job {job.number} is alive." for job in known]

    def _report_on(self, name: str) -> Report:
        found = [job for job in self.world.jobs if job.name == name]
        return self._report(found[-1]) if found else Report(state=RemoteState.MISSING)

    def _report(self, job: PaidJob) -> Report:
        result = {"content": f"result {job.number}"} if job.state is RemoteState.COMPLETED else None
        error = {"message": "It failed.", "type": "execution_error"} if job.state is RemoteState.FAILED else None
        return Report(state=job.state, result=result, error=error, creator_task_id=self._named(job))

    def _named(self, job: PaidJob) -> str | None:
        return None if self.powers.own else job.name
