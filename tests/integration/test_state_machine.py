"""Random lives of tasks, against a model of the state machine that was written independently of the package.

The model knows states, attempts and effects, not verdicts: whether something without effect is called a duplicate,
stale or ignored is checked elsewhere.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flask_contenthub_webhook import task_completed, task_failed, task_progress
from flask_contenthub_webhook.core.events import parse_event
from flask_contenthub_webhook.core.received import ReceivedEvent, Source
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.engine.process import process
from flask_contenthub_webhook.engine.replay import replay
from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from flask_contenthub_webhook.errors import HandlerFailed, TransitionRefused
from tests.support.host import BrokenHandler, Host, completed, encode, failed, make_host, progress

OPEN = {"pending", "submitted", "processing"}
RETRIES_OF_A_DELIVERY = 3

settings.register_profile("ci", max_examples=500)
settings.register_profile("quick", max_examples=100)
PROFILE = settings.get_profile("ci" if os.environ.get("CI") else "quick")


@dataclass(frozen=True)
class Message:
    """What the sender may say; equal messages are byte-identical."""

    kind: str
    text: str = "a"
    percentage: int = 0

    def body(self, task_id: str) -> bytes:
        match self.kind:
            case "completed":
                return encode(completed(task_id, self.text))
            case "thin":
                return encode(completed(task_id, None, metadata={"topic": self.text}))
            case "failed":
                return encode(failed(task_id, self.text))
            case "final":
                return encode(failed(task_id, self.text, retryable=False))
        return encode(progress(task_id, self.percentage, timestamp=f"2026-11-23T15:00:0{self.text}Z"))


# Weighted so that a task lives for a while before it ends.
KINDS = st.sampled_from(["failed"] * 9 + ["completed", "thin", "final"])
TEXTS = st.sampled_from("abc")
MESSAGES = st.one_of(
    st.builds(Message, KINDS, TEXTS),
    st.builds(Message, KINDS, TEXTS),
    st.builds(Message, st.just("progress"), st.sampled_from("12"), st.sampled_from([10, 50, 90])),
)
ATTEMPTS = st.sampled_from(["none", "none", "current", "current", "older", "first"])


@dataclass
class Model:
    """One task, as section 5 has it."""

    max_retries: int
    status: str = "submitted"
    attempt: int = 1
    progress: tuple[int, str] | None = None
    applied: set[Message] = field(default_factory=set)
    effects: Counter[str] = field(default_factory=Counter)

    def effect_of(self, message: Message, attempt: int | None) -> str | None:
        """What the message would do now: the name of the effect, or None."""
        is_open = self.status in OPEN
        if message.kind == "completed":
            return "completed" if is_open or self.status in {"failed", "timeout"} else None
        if attempt is None:
            if message in self.applied:
                return None
        elif attempt != self.attempt:
            return None
        if message.kind == "progress":
            if not is_open or (self.progress is not None and (message.percentage, message.text) <= self.progress):
                return None
            return "progress"
        return "failed" if is_open or self.status == "timeout" else None

    def apply(self, message: Message, effect: str) -> None:
        self.applied.add(message)
        self.effects[effect] += 1
        if effect == "progress":
            self.status, self.progress = "processing", (message.percentage, message.text)
        elif effect == "completed":
            self.status = "completed"
        elif self.status in OPEN and message.kind == "failed" and self.attempt <= self.max_retries:
            self.status, self.attempt, self.progress = "pending", self.attempt + 1, None
        else:
            self.status = "failed"


@dataclass
class Kept:
    """A delivery that can be tried again."""

    message: Message
    attempt: int | None
    verdict: str
    tries: int = 1


class Tasks(RuleBasedStateMachine):
    """Events, crashes of handlers, retries and replays in any order."""

    host: Host
    broken: bool

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Kept] = {}

    @initialize(max_retries=st.sampled_from([0, 2, 5, 9]), status=st.sampled_from(sorted(OPEN)))
    def begin(self, max_retries: int, status: str) -> None:
        type(self).broken = False
        self.model = Model(max_retries, status)
        self.task_id = self.host.add_task(max_retries=max_retries, status=status)

    @rule(message=MESSAGES, speaks_for=ATTEMPTS)
    def send(self, message: Message, speaks_for: str) -> None:
        current = self.model.attempt
        attempts = {"none": None, "current": current, "older": max(1, current - 1), "first": 1}
        self.receive(message, attempts[speaks_for])

    def receive(self, message: Message, attempt: int | None) -> None:
        body = message.body(self.task_id)
        received = ReceivedEvent(
            task_id=self.task_id,
            event=parse_event(json.loads(body)),
            source=Source.WEBHOOK,
            received_at=self.host.clock(),
            attempt=attempt,
            task_is_authenticated=True,
            scheme="url",
            body=body,
        )
        effect = self.model.effect_of(message, attempt)
        spoke_for = attempt if attempt is not None else self.model.attempt
        if effect is not None and self.broken:
            with pytest.raises(HandlerFailed) as caught:
                process(self.host.state, received)
            assert caught.value.delivery_id is not None
            # It spoke for the attempt that was current when it came, and goes on to do so.
            self.kept[caught.value.delivery_id] = Kept(message, spoke_for, "failed")
            return
        applied = process(self.host.state, received)
        assert (applied.verdict == "processed") is (effect is not None)
        if effect is not None:
            self.model.apply(message, effect)
            self.kept[applied.delivery_id] = Kept(message, attempt, "processed")
        self.drop_settled_copies()

    @rule(message=MESSAGES)
    def send_four_times(self, message: Message) -> None:
        """As the real sender does, which knows of no attempts."""
        for _ in range(4):
            self.receive(message, None)

    @rule()
    def break_or_mend_the_handlers(self) -> None:
        type(self).broken = not self.broken

    @rule(how=st.sampled_from(["cancelled", "timed out", *["not yet"] * 6]))
    def give_up(self, how: str) -> None:
        if how == "timed out":
            self.host.pass_deadline(self.task_id)
            self.host.trigger(self.task_id, Trigger.TIMED_OUT)
            if self.model.status in OPEN:
                self.model.status = "timeout"
        elif how == "cancelled" and self.model.status in OPEN | {"cancelled"}:
            self.host.trigger(self.task_id, Trigger.CANCELLED)
            self.model.status = "cancelled"
        elif how == "cancelled":
            with pytest.raises(TransitionRefused):
                self.host.trigger(self.task_id, Trigger.CANCELLED)

    @rule()
    def retry_what_is_due(self) -> None:
        self.host.clock.advance(200)
        report = retry_due_deliveries(self.host.state)

        due = sorted(key for key, kept in self.kept.items() if kept.verdict == "failed")
        self.drop_settled_copies()
        tried = [delivery_id for delivery_id in due if delivery_id in self.kept]
        assert report.claimed == len(tried)
        for delivery_id in tried:
            kept = self.kept[delivery_id]
            effect = self.model.effect_of(kept.message, kept.attempt)
            if effect is not None and self.broken:
                kept.tries += 1
                kept.verdict = "failed" if kept.tries <= RETRIES_OF_A_DELIVERY else "dead"
            elif effect is not None:
                self.model.apply(kept.message, effect)
                kept.verdict = "processed"
            else:
                del self.kept[delivery_id]

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def replay_by_hand(self, data: st.DataObject) -> None:
        delivery_id = data.draw(st.sampled_from(sorted(self.kept)))
        kept = self.kept[delivery_id]
        effect = self.model.effect_of(kept.message, kept.attempt)
        if effect is not None and self.broken:
            with pytest.raises(HandlerFailed) as caught:
                replay(self.host.state, delivery_id)
            assert caught.value.delivery_id is not None
            self.kept[caught.value.delivery_id] = Kept(kept.message, kept.attempt, "failed")
            return
        applied = replay(self.host.state, delivery_id)
        assert (applied.verdict == "processed") is (effect is not None)
        if effect is not None:
            self.model.apply(kept.message, effect)
        if kept.verdict in {"failed", "dead"}:
            del self.kept[delivery_id]
        self.drop_settled_copies()

    def drop_settled_copies(self) -> None:
        """Forget the copies of a message that were settled together with the one that was applied."""
        rows = {row.id: row for row in self.host.deliveries(self.task_id)}
        for delivery_id, kept in list(self.kept.items()):
            row = rows[delivery_id]
            if kept.verdict in {"failed", "dead"} and (row.reason or "").startswith("Applied as delivery "):
                assert row.verdict == "duplicate"
                del self.kept[delivery_id]

    @invariant()
    def they_agree(self) -> None:
        task, content = self.host.state.task_model.__table__, self.host.Content.__table__
        with self.host.engine.connect() as connection:
            row = connection.execute(
                sa.select(task.c.status, task.c.attempt, task.c.next_poll_at).where(task.c.task_id == self.task_id)
            ).one()
            effects = Counter(connection.scalars(sa.select(content.c.body).where(content.c.task_id == self.task_id)))
        assert (row.status, row.attempt) == (self.model.status, self.model.attempt)
        assert effects == self.model.effects
        assert (row.next_poll_at is not None) is (row.status in OPEN)

    def teardown(self) -> None:
        with self.host.engine.begin() as connection:
            for table in reversed(self.host.db.metadata.sorted_tables):
                connection.execute(sa.delete(table))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_no_life_of_a_task_disagrees_with_the_model_of_the_design():
    host = make_host("sqlite://")

    def effect(name: str) -> Any:
        def receiver(app: Flask, *, task: Any, **extra: Any) -> None:
            host.db.session.add(host.Content(task_id=task.task_id, body=name))
            host.db.session.flush()
            if Tasks.broken:
                raise BrokenHandler("broken")

        return receiver

    with host.app.app_context():
        signals = {"completed": task_completed, "failed": task_failed, "progress": task_progress}
        task_completed.disconnect(host.publisher, sender=host.app)
        for name, signal in signals.items():
            host.connect(signal, effect(name))
        Tasks.host = host
        run = settings(
            PROFILE, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
        )
        machine: Any = Tasks
        machine.TestCase.settings = run
        logging.disable(logging.ERROR)  # thousands of handlers fail on purpose
        try:
            machine.TestCase().runTest()
        finally:
            logging.disable(logging.NOTSET)
            host.close()
