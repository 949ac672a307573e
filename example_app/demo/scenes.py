"""The play: what is sent, and what must come of it.

Each scene is compared with what it expects as it is played; `checks.py` looks once more at everything together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from example_app.demo.captures import Request
from example_app.demo.cast import Cast, Role
from flask_contenthub_webhook import generate_signature

MEGABYTE = 1024 * 1024
COPIES = 20
OUR_TOKEN = "URL token"  # noqa: S105 - a caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Some requests about some tasks, and what is expected.

    Args:
        sent: what is sent, for people.
        by: how it is authenticated, for people.
        requests: one after the other, or all at once.
        answers: expected, in any order where they are sent at once.
        roles: the tasks that it is about.
        states: expected of these tasks afterwards.
        contents: expected of these tasks afterwards, their review statuses.
        why: the reason, for people.
        at_once: send all requests at the same time.
    """

    sent: str
    by: str
    requests: tuple[Request, ...]
    answers: tuple[str, ...]
    roles: tuple[Role, ...]
    states: tuple[str, ...]
    contents: tuple[str, ...] = ()
    why: str
    at_once: bool = field(default=False)


def scenes(cast: Cast, secret: str, url: str) -> Iterator[tuple[str, list[Scene]]]:
    """The acts, each with its scenes, in the order in which they are played."""
    yield "What the creator sends", real_life(cast)
    yield "What others send", [*forged(cast, secret), *garbage(cast)]
    yield "Many at once", [the_real_one(cast), batch(cast, url), crowd(cast)]


def real_life(cast: Cast) -> list[Scene]:
    return [
        captured(
            cast["article"],
            ["completed-content-creator"],
            sent="completed",
            answers=["200 processed"],
            state="completed",
            contents=["approved"],
            why="Its task says auto-approve and it scores 8.4: into the publish pool.",
        ),
        captured(
            cast["essay"],
            ["completed-no-images"],
            sent="completed, no images",
            answers=["200 processed"],
            state="completed",
            contents=["pending_review"],
            why="Its task wants a reviewer.",
        ),
        captured(
            cast["retried"],
            ["retry-503-attempt-1", "retry-503-attempt-2"],
            sent="completed, and the sender's own retry of it",
            answers=["200 processed", "200 duplicate"],
            state="completed",
            contents=["pending_review"],
            why="The retry is byte-identical; it is acknowledged and does nothing.",
        ),
        captured(
            cast["flaky"],
            ["failed-llm-http-400"] * 4,
            sent="failed, all four tries of the sender",
            answers=["200 processed", "200 stale", "200 stale", "200 stale"],
            state="pending, attempt 2",
            why="One failure, not four: the others speak for attempt 1, and attempt 2 is on.",
        ),
        captured(
            cast["hopeless"],
            ["failed-text-quality"],
            sent="failed",
            answers=["200 processed"],
            state="failed (execution_error)",
            why="No retries left; the account gets a note.",
        ),
        captured(
            cast["contradicted"],
            ["completed-before-duplicate", "failed-duplicate-idempotency-key"],
            sent="completed, then failed for the same task",
            answers=["200 processed", "200 ignored"],
            state="completed",
            contents=["approved"],
            why="What is completed stays completed.",
        ),
        captured(
            cast["turned"],
            ["failed-then-completed-1-failed", "failed-then-completed-2-completed"],
            sent="failed, then completed for the same task",
            answers=["200 processed", "200 processed"],
            state="completed",
            contents=["pending_review"],
            why="A late result counts; as we had given up, a person looks at it first.",
        ),
        captured(
            cast["timed out"],
            ["completed-images-not-downloaded"],
            sent="completed, after our timeout",
            answers=["200 processed"],
            state="completed",
            contents=["pending_review"],
            why="Late too: the work is not thrown away.",
        ),
        captured(
            cast["empty-handed"],
            ["completed-agent-workflow"],
            sent="completed, without any content",
            answers=["200 processed"],
            state="failed (INVALID_RESULT)",
            why="Nothing that could be published came; the task says so.",
        ),
    ]


def forged(cast: Cast, secret: str) -> list[Scene]:
    target, other = cast["target"], cast["essay"]
    real = Request.captured("completed-nonuuid-taskid")
    token = parse_qs(urlsplit(target.url).query)["token"][0]
    wrong = target.url.replace(token, token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBB"))
    about_other = json.dumps({"event": "completed", "taskId": other.task_id, "result": {"content": "# Mine"}}).encode()
    return [
        untouched(
            target,
            real.to(wrong),
            sent="completed, forged",
            by="wrong token",
            answer="401 signature_invalid",
            why="The token is not ours. Nobody learns whether the task exists.",
        ),
        untouched(
            target,
            real.to(target.url.partition("?")[0]),
            sent="completed, forged",
            by="nobody",
            answer="403 signature_missing",
            why="Signatures are required here.",
        ),
        untouched(
            target,
            real.to(target.url.partition("?")[0] + "?" + other.url.partition("?")[2]),
            sent="completed, forged",
            by="token of another task",
            answer="401 signature_invalid",
            why="A token is for one task and one attempt.",
        ),
        untouched(
            target,
            real.to(target.url.partition("?")[0]).carrying(about_other).signed(generate_signature(about_other, secret)),
            sent="a rightly signed body, about another task",
            by="body signature",
            answer="409 task_mismatch",
            why="A signature says who wrote the body; the body says which task it is about.",
        ),
    ]


def garbage(cast: Cast) -> list[Scene]:
    target = cast["target"]
    real = Request.captured("completed-nonuuid-taskid").to(target.url)
    bodies = {
        "completed with a NaN": real.body.replace(b'"qualityScore":8.4', b'"qualityScore":NaN'),
        "half a body, no JSON": real.body[: len(real.body) // 2],
        "completed with a NUL": real.body.replace(b'"content":"', rb'"content":"\u0000', 1),
    }
    reasons = ("NaN is not JSON.", "It ends in the middle.", "No database keeps a NUL in a text.")
    scenes = [
        untouched(target, real.carrying(body), sent=sent, by=OUR_TOKEN, answer="400 invalid_json", why=why)
        for (sent, body), why in zip(bodies.items(), reasons, strict=True)
    ]
    huge = json.dumps({"event": "completed", "result": {"content": "x" * 20 * MEGABYTE}}).encode()
    return [
        *scenes,
        untouched(
            target,
            real.carrying(huge),
            sent="completed with 20 MB",
            by=OUR_TOKEN,
            answer="413 payload_too_large",
            why="The limit is 16 MiB (WEBHOOK_MAX_BODY_BYTES).",
        ),
    ]


def the_real_one(cast: Cast) -> Scene:
    return captured(
        cast["target"],
        ["completed-nonuuid-taskid"],
        sent="completed, the real one",
        answers=["200 processed"],
        state="completed",
        contents=["approved"],
        why="All of the above did no harm to this task.",
    )


def batch(cast: Cast, url: str) -> Scene:
    first, second, third, fourth = (cast[f"batch {number}"] for number in range(1, 5))
    progress = {"event": "progress", "taskId": fourth.task_id, "progress": {"percentage": 40, "message": "writing"}}
    events = [
        item(first, body_of("completed-no-images")),
        item(second, body_of("failed-llm-unreachable")),
        item(third, body_of("completed-no-images")) | {"token": item(first, {})["token"]},
        item(fourth, progress),
    ]
    request = Request.captured("completed-no-images").to(f"{url}/api/v1/content/callbacks")
    return Scene(
        sent="a batch: completed, failed, a forged one, progress",
        by="token in each event",
        requests=(request.carrying(json.dumps({"events": events}, ensure_ascii=False).encode()),),
        answers=("200 processed, processed, signature_invalid, processed",),
        roles=(first, second, third, fourth),
        states=("completed", "pending, attempt 2", "pending", "processing, 40 %"),
        contents=("pending_review",),
        why="Each event has its own transaction and its own verdict.",
    )


def crowd(cast: Cast) -> Scene:
    role = cast["crowd"]
    return Scene(
        sent=f"completed, {COPIES} copies at the same moment",
        by=OUR_TOKEN,
        requests=(Request.captured("completed-content-creator").to(role.url),) * COPIES,
        answers=("200 processed", *["200 duplicate"] * (COPIES - 1)),
        roles=(role,),
        states=("completed",),
        contents=("approved",),
        why="One UPDATE of the task decides: one wins, and the handlers run in its transaction alone.",
        at_once=True,
    )


# --- how scenes are made -------------------------------------------------------------------------------------


def captured(
    role: Role,
    names: list[str],
    *,
    sent: str,
    answers: list[str],
    state: str,
    why: str,
    contents: list[str] | None = None,
) -> Scene:
    """Captured requests, unchanged, to a task's own callback URL."""
    return Scene(
        sent=sent,
        by=OUR_TOKEN,
        requests=tuple(Request.captured(name).to(role.url) for name in names),
        answers=tuple(answers),
        roles=(role,),
        states=(state,),
        contents=tuple(contents or ()),
        why=why,
    )


def untouched(role: Role, request: Request, *, sent: str, by: str, answer: str, why: str) -> Scene:
    """A request that must be refused and leave its task as it was."""
    return Scene(sent=sent, by=by, requests=(request,), answers=(answer,), roles=(role,), states=("pending",), why=why)


def body_of(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(Request.captured(name).body)
    return body


def item(role: Role, event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of a batch: it names our task, and carries what the task's callback URL has in its query."""
    query = parse_qs(urlsplit(role.url).query)
    return {**event, "taskId": role.task_id, "attempt": int(query["attempt"][0]), "token": query["token"][0]}
