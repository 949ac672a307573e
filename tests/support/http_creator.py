"""Jobs, ids and secrets for the tests of the HTTP creator."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from flask_contenthub_webhook.creators import HttpCreator, Job
from tests.support.creator_server import CreatorServer, Reply, Seen

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ID = "323f4099-0c98-47eb-a086-19faa5b14936"  # the completed task of the captures
OTHER = "11111111-1111-4111-8111-111111111111"
KEY = "sk-a-key-that-nobody-may-see"
TOKEN = "a-token-that-nobody-may-see"
CALLBACK = f"https://hub.example.com/callback/1?attempt=1&token={TOKEN}"
JOB = Job(creator_task_id=ID, topic="T", requirements="R", target_audience="A")

Serve = Callable[[Callable[[Seen], Reply] | Reply], CreatorServer]
Connect = Callable[..., HttpCreator]


class Clock:
    """Seconds that go forward when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number, version=4)) for number in range(count)]
