"""Part 1 of the demo: real requests of the real creator, and forged ones, at a real server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from rich.console import Console
from rich.text import Text

from example_app.app import create_app
from example_app.demo.expectations import OPEN, Part, callback_checks, load_outcomes
from example_app.demo.output import Table, contents_in_words, print_checks, set_up
from example_app.demo.requests import Answer, body_of, captured, send
from example_app.extensions import db, webhook
from example_app.models import GenerationTask, now
from example_app.server import WORKERS, Server
from example_app.tasks import account_named, create_task
from flask_contenthub_webhook import generate_signature

COLUMNS = {"Sent": 32, "Authentication": 14, "Answer": 22, "Task": 17, "Contents": 11}
COLOURS = {2: "green", 4: "yellow"}
URL_TOKEN = "URL token"  # noqa: S105 - a caption
TARGET_CAPTURE = "completed-nonuuid-taskid"
COPIES = 20


STORY = (
    "What a real creator sends, resends and sends too late; forged and broken requests; 20 copies at the same moment."
)


def run_callbacks(console: Console, details: Console, folder: Path) -> Part:
    """Run every step.

    Args:
        console: where to print that it begins.
        details: where to print each step.
        folder: for the server's log.
    """
    app = create_app()
    set_up(app, details)
    with app.app_context():
        with Server(folder / "callbacks.log") as server:
            console.print(f"Part 1 is served by gunicorn (process {server.pid}, {WORKERS} workers).")
            details.print()
            steps = Steps(details, server.url)
            steps.run()
        details.print()
        problems = [problem for found in steps.problems for problem in found]
        checks = list(callback_checks(steps.task_ids, steps.answers))
        failures = problems + print_checks(details, checks)
        _cancel_open(steps.task_ids)
    as_expected = sum(not found for found in steps.problems)
    outcome = f"{as_expected} of {len(steps.problems)} steps went as expected."
    details.print(f"\n{outcome}")
    return Part(STORY, outcome, checks, failures)


class Task(NamedTuple):
    """A task of the demo, and the URL that its creator was given."""

    id: str
    url: str

    @property
    def parameters(self) -> dict[str, str]:
        """The `attempt` and the `token` of the URL."""
        return dict(parse_qsl(urlsplit(self.url).query))

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return an event about this task as an item of a batch, which has no URL of its own for the token."""
        parameters = self.parameters
        return {**event, "taskId": self.id, "attempt": int(parameters["attempt"]), "token": parameters["token"]}


class Steps:
    """The steps, each of which sends requests and compares the results with the expected ones.

    Args:
        console: where to print the results.
        url: the address of the server.
    """

    def __init__(self, console: Console, url: str) -> None:
        self.task_ids: list[str] = []
        self.answers: list[Answer] = []
        self.problems: list[list[str]] = []
        """The differences found, for each step."""
        self.url = url
        self.table = Table(console, COLUMNS)
        self._name = f"Demo of {now():%Y-%m-%d %H:%M:%S.%f}"
        self._target = self._task("target", auto_approve=True)

    def run(self) -> None:
        self.table.print_title("What the creator sends")
        self._send_real()
        self.table.print_title("What others send")
        self._send_forged()
        self._send_garbage()
        self.table.print_title("Many at once")
        self._send_many()

    def _send_real(self) -> None:
        self._send_captured("completed", "completed-content-creator", auto_approve=True).expect(
            "200 processed",
            "completed",
            "1 approved",
            why="Its task says auto-approve and it scores 8.4: into the publish pool.",
        )
        self._send_captured("completed, no images", "completed-no-images").expect(
            "200 processed", "completed", "1 in review", why="Its task wants a reviewer."
        )
        self._send_captured(
            "completed, and the sender's own resend of it", "retry-503-attempt-1", "retry-503-attempt-2"
        ).expect(
            "200 processed\n200 duplicate",
            "completed",
            "1 in review",
            why="The resend is byte-identical; it is acknowledged and does nothing.",
        )
        self._send_captured("failed, all four tries of the sender", *["failed-llm-http-400"] * 4).expect(
            "200 processed\n3x 200 stale",
            "pending, attempt 2",
            why="One failure, not four: the others are about attempt 1, and attempt 2 has begun.",
        )
        self._send_captured("failed", "failed-text-quality", max_retries=0).expect(
            "200 processed", "failed (execution_error)", why="No attempts are left; the account gets a note."
        )
        self._send_captured(
            "completed, then failed for the same task",
            "completed-before-duplicate",
            "failed-duplicate-idempotency-key",
            auto_approve=True,
        ).expect("200 processed\n200 ignored", "completed", "1 approved", why="A completed task stays completed.")
        self._send_captured(
            "failed, then completed for the same task",
            "failed-then-completed-1-failed",
            "failed-then-completed-2-completed",
            auto_approve=True,
            max_retries=0,
        ).expect(
            "2x 200 processed",
            "completed",
            "1 in review",
            why="A late result counts; because we had given up, a person looks at it first.",
        )
        self._send_captured(
            "completed, after our timeout",
            "completed-images-not-downloaded",
            auto_approve=True,
            status="timeout",  # only a new row may be given a status; from then on it is the extension's
            next_poll_at=None,
        ).expect("200 processed", "completed", "1 in review", why="Late as well: the work is not thrown away.")
        self._send_captured("completed, without any content", "completed-agent-workflow", auto_approve=True).expect(
            "200 processed", "failed (INVALID_RESULT)", why="There is nothing to publish, so the task has failed."
        )

    def _send_forged(self) -> None:
        other = self._task("another task")
        path, _, _ = self._target.url.partition("?")
        token = self._target.parameters["token"]
        self._send_wrong("completed, forged", "wrong token", self._target.url.replace(token, token.swapcase())).expect(
            "401 signature_invalid",
            "pending",
            why="The token is not ours. The answer does not reveal whether the task exists.",
        )
        self._send_wrong("completed, forged", "none", path).expect(
            "403 signature_missing", "pending", why="Signatures are required here."
        )
        others_query = other.url.partition("?")[2]
        self._send_wrong("completed, forged", "token of another task", f"{path}?{others_query}").expect(
            "401 signature_invalid", "pending", why="A token is for one task and one attempt."
        )
        body = json.dumps({"event": "completed", "taskId": other.id, "result": {"content": "# Mine"}}).encode()
        signature = generate_signature(body, webhook.settings.secrets[0])
        self._send_wrong(
            "a correctly signed body, about another task", "body signature", path, body=body, signature=signature
        ).expect(
            "409 task_mismatch",
            "pending",
            why="A signature says who wrote the body; the body says which task it is about.",
        )

    def _send_garbage(self) -> None:
        real = body_of(TARGET_CAPTURE)
        for sent, body, why in (
            ("completed with a NaN", real.replace(b'Score":8.4', b'Score":NaN'), "NaN is not JSON."),
            ("half a body, not JSON", real[: len(real) // 2], "It ends in the middle."),
            (
                "completed with a NUL",
                real.replace(b'"content":"', rb'"content":"\u0000', 1),
                "Not every database can store a NUL in a text.",
            ),
        ):
            self._send_wrong(sent, body=body).expect("400 invalid_json", "pending", why=why)
        huge = json.dumps({"event": "completed", "result": {"content": "x" * 20 * 1024 * 1024}}).encode()
        self._send_wrong("completed with 20 MB", body=huge).expect(
            "413 payload_too_large", "pending", why="The limit is 16 MiB (WEBHOOK_MAX_BODY_BYTES)."
        )

    def _send_many(self) -> None:
        self._send("completed, the real one", URL_TOKEN, [captured(TARGET_CAPTURE, self._target.url)]).expect(
            "200 processed", "completed", "1 approved", why="None of the requests above did this task any harm."
        )
        batch = first, second, third, fourth = [self._task(f"batch {number}") for number in range(1, 5)]
        completed = json.loads(body_of("completed-no-images"))
        events = [
            first.event(completed),
            second.event(json.loads(body_of("failed-llm-unreachable"))),
            third.event(completed) | {"token": first.parameters["token"]},
            fourth.event({"event": "progress", "progress": {"percentage": 40, "message": "writing"}}),
        ]
        body = json.dumps({"events": events}, ensure_ascii=False).encode()
        request = captured("completed-no-images", f"{self.url}/api/v1/content/callbacks", body)
        self._send(
            "a batch: completed, failed, a forged one, progress", "token in each event", [request], batch
        ).expect(
            "200 processed, processed, signature_invalid, processed",
            "completed\npending, attempt 2\npending\nprocessing, 40 %",
            "1 in review",
            why="Each event has its own transaction and its own verdict.",
        )
        task = self._task("copies", auto_approve=True)
        copies = [captured("completed-content-creator", task.url)] * COPIES
        self._send(f"completed, {COPIES} copies at the same moment", URL_TOKEN, copies, [task], at_once=True).expect(
            f"200 processed\n{COPIES - 1}x 200 duplicate",
            "completed",
            "1 approved",
            why="One UPDATE of the task decides: one copy wins, and only its transaction runs the handlers.",
        )

    def _send_captured(self, sent: str, *names: str, **columns: Any) -> Sent:
        """Send captured requests, unchanged, to the callback URL of a new task."""
        task = self._task(sent, **columns)
        return self._send(sent, URL_TOKEN, [captured(name, task.url) for name in names], [task])

    def _send_wrong(self, sent: str, proof: str = URL_TOKEN, url: str = "", **changes: Any) -> Sent:
        """Send a request that the target must not believe."""
        return self._send(sent, proof, [captured(TARGET_CAPTURE, url or self._target.url, **changes)])

    def _send(
        self, sent: str, proof: str, requests: Sequence[bytes], tasks: Sequence[Task] = (), *, at_once: bool = False
    ) -> Sent:
        """Send requests about some tasks, by default the target, one after the other or all at once."""
        with ThreadPoolExecutor(len(requests) if at_once else 1) as senders:
            answers = list(senders.map(lambda request: send(request, self.url), requests))
        if at_once:
            answers.sort(key=lambda answer: answer.words != ("processed",))  # the winner is shown first
        self.answers += answers
        return Sent(self, sent, proof, answers, [task.id for task in tasks or [self._target]])

    def _task(self, topic: str, **columns: Any) -> Task:
        account = account_named(self._name, min_quality=8)
        task = create_task(account, topic, base_url=self.url, **columns)
        self.task_ids.append(task.task_id)
        made = Task(task.task_id, task.callback_url or "")
        db.session.commit()
        return made


@dataclass(frozen=True, slots=True)
class Sent:
    """Requests that were sent, described in words, with their answers."""

    steps: Steps
    sent: str
    proof: str
    answers: Sequence[Answer]
    task_ids: Sequence[str]

    def expect(self, answers: str, tasks: str, contents: str = "none", *, why: str) -> None:
        """Compare the answers, and the tasks in the database, with the expected ones, and print both with the reason.

        Args:
            answers: a line for each kind of answer, with the number where there are several.
            tasks: a line for each task.
            contents: the number of contents in each review status.
            why: the reason, in words.
        """
        outcomes = load_outcomes(self.task_ids)
        counted = Counter(str(answer) for answer in self.answers)
        found = {
            "answered": "\n".join(text if number == 1 else f"{number}x {text}" for text, number in counted.items()),
            "task": "\n".join(str(outcome) for outcome in outcomes),
            "contents": contents_in_words(outcomes),
        }
        problems = [
            f"{name}: {actual}; expected: {expected}".replace("\n", ", ")
            for (name, actual), expected in zip(found.items(), (answers, tasks, contents), strict=True)
            if actual != expected
        ]
        self.steps.problems.append([f"{self.sent}: {problem}" for problem in problems])
        note = Text(f"NOT AS EXPECTED: {'; '.join(problems)}", "bold red") if problems else Text(why, "dim")
        colour = COLOURS.get(max(answer.status for answer in self.answers) // 100, "red")
        cells = (self.sent, self.proof, Text(found["answered"], colour), found["task"], found["contents"])
        self.steps.table.print_row(cells, note)


def _cancel_open(task_ids: Sequence[str]) -> None:
    """Leave nothing open that the scheduler of the next part would take up."""
    is_ours, is_open = GenerationTask.task_id.in_(task_ids), GenerationTask.status.in_(OPEN)
    left = list(db.session.scalars(db.select(GenerationTask.task_id).where(is_ours, is_open)))
    db.session.rollback()
    for task_id in left:
        webhook.cancel(task_id)
