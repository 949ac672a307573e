"""Seven services, eight fates of a job, on each kind of database, with events applied in the request and by a worker.

One application uses all seven at once. After each fate the task is as it should be, its effect happened once, and the
service has been paid for no job more than that.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_contenthub_webhook.creators import Creators, Job
from flask_contenthub_webhook.engine.retry import RetryReport, work_off
from flask_contenthub_webhook.testing.live import LiveApp
from flask_contenthub_webhook.testing.services import Message, PaidJob
from tests.support.host import PREFIX, Host, make_host
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.services import SERVICES

pytestmark = pytest.mark.slow  # together they take minutes, so a parallel run begins with them

LEASE = 300
"""Seconds after which a submission that was broken off is taken up again, and more than any backoff."""
WORDS = "the model is overloaded"


class World:
    """An application with seven services, on a real port."""

    def __init__(self, host: Host, live: LiveApp, fakes: dict[str, Any], *, has_worker: bool, victims: Any) -> None:
        self.host, self.fakes, self.has_worker, self.victims = host, fakes, has_worker, victims
        for name, fake in fakes.items():
            fake.webhook_url = f"{live.base_url}{PREFIX}/callbacks/{name}"

    def submit_due(self) -> dict[str, int]:
        with self.host.app.app_context():
            return dict(self.host.webhook.submit_due().outcomes)

    def reconcile(self) -> None:
        with self.host.app.app_context():
            self.host.webhook.reconcile()

    def send(self, message: Message) -> str:
        """Deliver a webhook, let a worker apply it if there is one, and return the verdict or the refusal."""
        before = len(self.host.deliveries())
        answer = message.send()
        if answer.status_code >= 400:
            return str(answer.json()["error"]["code"])
        if not self.has_worker:
            assert answer.status_code == 200
            return str(answer.json()["outcome"])
        work_off(self.host.state, RetryReport(), limit=100)
        return str(self.host.deliveries()[before].verdict)


class Case:
    """One task at one of the services."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.host, self.service, self.fake = world, world.host, SERVICES[name], world.fakes[name]
        self._known = set(self.fake.jobs)
        self.task_id = ""

    @property
    def jobs(self) -> list[PaidJob]:
        """What was started at the service for this task."""
        return [job for name, job in self.fake.jobs.items() if name not in self._known]

    @property
    def task(self) -> Any:
        return self.host.task(self.task_id)

    def write(self) -> None:
        """Write a task that is to be handed over."""
        with self.host.app.app_context():
            asked = {"topic": "Tea", "requirements": "short", **self.service.options}
            self.task_id = self.host.webhook.submit(creator=self.service.name, **asked).task_id

    def submit(self) -> PaidJob:
        self.write()
        assert self.world.submit_due() == {"submitted": 1}
        (job,) = self.jobs
        return job

    def ends_well(self, text: str, *, jobs: int = 1) -> None:
        """Completed with this text, once; every job was paid for this task, and none runs on."""
        assert (self.task.status, self.host.contents(self.task_id)) == ("completed", [text])
        assert (len(self.jobs), [job for job in self.jobs if job.state == "open"]) == (jobs, [])


# --- the eight fates ---------------------------------------------------------------------------------------------


def called_back(case: Case) -> None:
    job = case.submit()
    assert case.world.send(case.fake.message(case.fake.complete(job, "# Tea"))) == "processed"
    case.ends_well("# Tea")


def called_back_twice(case: Case) -> None:
    message = case.fake.message(case.fake.complete(case.submit(), "# Tea"))
    assert case.world.send(message) == "processed"
    assert case.world.send(message) == "duplicate"
    case.ends_well("# Tea")


def lost_then_polled(case: Case) -> None:
    case.fake.complete(case.submit(), "# Tea")
    case.host.clock.advance(LEASE)
    case.world.reconcile()
    case.ends_well("# Tea")


def forged(case: Case) -> None:
    job = case.fake.complete(case.submit(), "# Tea")
    assert case.world.send(case.fake.message(job, forged=True)) == "signature_invalid"
    assert case.task.status == "submitted"
    assert case.world.send(case.fake.message(job)) == "processed"
    case.ends_well("# Tea")


def an_old_failure_after_a_new_attempt(case: Case) -> None:
    first = case.fake.fail(case.submit(), WORDS)
    assert case.world.send(case.fake.message(first)) == "processed"
    case.host.clock.advance(LEASE)
    case.world.submit_due()
    _, second = case.jobs
    assert case.world.send(case.fake.message(case.fake.fail(first, "again"))) in {"stale", "ignored", "duplicate"}
    assert (case.task.status, case.task.attempt) == ("submitted", 2)
    assert case.world.send(case.fake.message(case.fake.complete(second, "# Tea"))) == "processed"
    case.ends_well("# Tea", jobs=2)


def failed_in_its_own_words_and_tried_again(case: Case) -> None:
    job = case.fake.fail(case.submit(), WORDS)
    assert case.world.send(case.fake.message(job)) == "processed"
    assert (case.task.status, case.task.attempt, case.task.error_message) == ("pending", 2, WORDS)
    case.host.clock.advance(LEASE)
    assert case.world.submit_due() == {"submitted": 1}
    second = case.fake.complete(case.jobs[1], "# Tea")
    assert case.world.send(case.fake.message(second)) == "processed"
    case.ends_well("# Tea", jobs=2)


def called_back_before_the_submission_was_answered(case: Case) -> None:
    seen: list[str] = []
    case.fake.before_answering = lambda job: seen.append(
        case.world.send(case.fake.message(case.fake.complete(job, "# Tea")))
    )
    case.write()
    case.world.submit_due()
    case.fake.before_answering = lambda _: None
    assert seen == ["processed"]
    case.ends_well("# Tea")


def killed_between_the_call_and_the_commit(case: Case) -> None:
    case.write()
    assert case.world.victims.hand_over(case.service.name, case.fake, case.host.clock.now) == signal.SIGKILL
    (job,) = case.jobs
    asked = len(case.fake.requests)
    case.host.clock.advance(LEASE)
    case.world.submit_due()
    case.host.clock.advance(LEASE)
    case.world.reconcile()
    assert case.fake.asked[asked:] == []  # neither for a second job, nor about a name that it never confirmed
    assert case.world.send(case.fake.message(case.fake.complete(job, "# Tea"))) == "processed"
    case.ends_well("# Tea")


FATES: list[Callable[[Case], None]] = [
    called_back,
    called_back_twice,
    lost_then_polled,
    forged,
    an_old_failure_after_a_new_attempt,
    failed_in_its_own_words_and_tried_again,
    called_back_before_the_submission_was_answered,
    killed_between_the_call_and_the_commit,
]


@pytest.mark.parametrize("fate", FATES, ids=lambda fate: fate.__name__)
@pytest.mark.parametrize("name", SERVICES)
def test_each_service_through_each_fate(world: World, name: str, fate: Callable[[Case], None]):
    fate(Case(world, name))


# --- one sender and another --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "runpod"])  # it has no key
def test_the_key_of_one_sender_settles_no_task_of_another(world: World, name: str):
    """A webhook that is signed by one service is sent to the URL of another's task, and to that other's common one."""
    other = Case(world, "gemini" if name != "gemini" else "fal")
    job = other.submit()
    fake = world.fakes[name]
    one = Case(world, name)
    body = fake.message(fake.complete(one.submit(), "# Tea"))
    urls = [job.callback_url, f"{other.fake.webhook_url}"]
    for url in urls:
        assert world.send(Message(url, body.headers, body.body)) in {"signature_invalid", "signature_missing"}
    assert other.task.status == "submitted"
    assert world.send(body) == "processed"
    other.fake.complete(job)
    assert world.send(other.fake.message(job)) == "processed"


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in {"fal", "runpod"}])
def test_an_event_about_a_job_of_another_application_is_ignored_and_recorded(world: World, name: str):
    """The webhook of fal names no job, and RunPod's has no signature: both are believed at a task's own URL alone."""
    fake, service = world.fakes[name], SERVICES[name]
    theirs = Job(creator_task_id="theirs", task_id="of another application", topic="Tea", options=service.options)
    service.make(fake).submit(theirs, wait=3)
    before = [(task.task_id, task.status, task.updated_at) for task in world.host.tasks()]
    message = fake.message(fake.complete(fake.last, "# Tea"))
    answer = message.send()
    assert (answer.status_code, answer.json()["outcome"]) == (200, "ignored")
    row = world.host.deliveries()[-1]
    assert (row.verdict, row.scheme, row.task_id, bytes(row.body)) == ("ignored", name, None, message.body)
    assert [(task.task_id, task.status, task.updated_at) for task in world.host.tasks()] == before


@pytest.mark.parametrize("name", ["fal", "runpod"])
def test_what_only_a_url_vouches_for_is_refused_at_the_common_url(world: World, name: str):
    case = Case(world, name)
    job = case.submit()
    message = case.fake.message(case.fake.complete(job, "# Tea"))
    common = Message(case.fake.webhook_url, message.headers, message.body)
    assert world.send(common) == ("invalid_payload" if name == "fal" else "signature_missing")
    assert case.task.status == "submitted"
    assert world.send(message) == "processed"


@pytest.mark.parametrize("name", ["openai", "gemini", "assemblyai"])
def test_a_thin_event_is_not_lost_while_its_service_is_away(world: World, name: str):
    """It is kept where its URL names the task; at the common URL, the service is asked to send it again."""
    case = Case(world, name)
    job = case.fake.complete(case.submit(), "# Tea")
    assert world.send(case.fake.message(job, forged=True)) == "signature_invalid"  # and public keys have been fetched
    message = case.fake.message(job)
    case.fake.away = 502
    answer = message.send()
    case.fake.away = None
    case.host.clock.advance(LEASE)
    if case.service.has_one_url:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "event_unreadable")
        assert world.send(message) == "processed"
    else:
        assert (answer.status_code, answer.json()["outcome"]) == (202, "queued")
        case.host.retry()
    case.ends_well("# Tea")


# --- the application ---------------------------------------------------------------------------------------------


class Victims:
    """Processes that are killed with the answer of the service in their hands; see :mod:`.killed`."""

    def __init__(self, database_url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.services.killed", database_url],
            cwd=PROJECT_ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hand_over(self, name: str, fake: Any, now: Any) -> int:
        """Return the signal by which the process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {fake.base_url} {fake.secret} {now.isoformat()}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


KINDS = [f"{database} {mode}" for database in ("sqlite", "postgresql", "mariadb") for mode in ("inline", "worker")]


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    database, mode = request.param.split()
    if database == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('services') / 'test.db'}"
    else:
        url = request.getfixturevalue("postgres" if database == "postgresql" else "mariadb").create_database()
    with contextlib.ExitStack() as stack:
        fakes = {name: stack.enter_context(service.fake()) for name, service in SERVICES.items()}
        creators = Creators(**{name: SERVICES[name].make(fake) for name, fake in fakes.items()})
        config = {"WEBHOOK_PROCESSING": mode, "WEBHOOK_SUBMIT_THREADS": 0}
        host = make_host(url, models=lambda db: {"creator": creators}, **config)
        stack.callback(host.close)
        victims = Victims(url)
        stack.callback(victims.close)
        live = stack.enter_context(LiveApp(host.app))
        yield World(host, live, fakes, has_worker=mode == "worker", victims=victims)
