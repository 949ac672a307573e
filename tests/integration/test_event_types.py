"""Every built-in event type has all its parts: one that is added by half fails here, with the file that lacks it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import signals
from flask_contenthub_webhook.cli.sample_events import sample_event
from flask_contenthub_webhook.core.events import EVENT_NAME, EVENT_TYPES, EventType, parse_event
from flask_contenthub_webhook.core.state_machine import TRANSITIONS, TaskState, TaskView, Trigger, Verdict, decide
from flask_contenthub_webhook.engine.handlers import _SIGNALS
from flask_contenthub_webhook.forwarding.write import forwarded_event
from flask_contenthub_webhook.testing.callbacks import CallbackSender
from tests.support.host import Host

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
every_type = pytest.mark.parametrize(("name", "entry"), EVENT_TYPES.items())


def sample(name: str, task_id: str = "t") -> dict[str, Any]:
    return sample_event(name, task_id, NOW)


@every_type
def test_the_sample_that_send_posts_is_valid(name: str, entry: EventType[Any]):
    event = parse_event(sample(name))
    assert (type(event), event.type) == (entry.event, name), "cli/sample_events.py, core/events.py"


@every_type
def test_an_event_changes_its_task_and_sends_its_signal_with_what_it_says(
    sqlite_host: Host, name: str, entry: EventType[Any]
):
    task_id = sqlite_host.add_task(max_retries=0)
    told: list[dict[str, Any]] = []
    sqlite_host.connect(entry.signal, lambda _, **arguments: told.append(arguments))
    before = row(sqlite_host, task_id)

    answer = sqlite_host.post(task_id, sample(name, task_id))

    assert answer.get_json()["outcome"] == "processed"
    changed = {column for column, value in row(sqlite_host, task_id).items() if value != before[column]}
    assert changed - {"updated_at", "version"}, "engine/task_changes.py changes no column for it"
    assert len(told) == 1, f"engine/handlers.py does not send {entry.signal.name}"
    assert told[0].keys() > {"task", "delivery"}, "engine/apply.py passes nothing of the event to the signal"


@every_type
def test_an_event_of_an_earlier_attempt_is_stale_if_the_entry_says_so(name: str, entry: EventType[Any]):
    trigger = entry.trigger(parse_event(sample(name)))
    second = TaskView(status=TaskState.SUBMITTED, attempt=2, max_retries=3)
    is_stale = decide(trigger, second, attempt=1).verdict is Verdict.STALE
    assert is_stale == entry.one_attempt, "core/state_machine.py, _OF_ONE_ATTEMPT"


@every_type
def test_an_event_can_be_forwarded_and_sent_in_tests(name: str, entry: EventType[Any]):
    event = parse_event(sample(name))
    decision = decide(entry.trigger(event), TaskView(status=TaskState.SUBMITTED, attempt=1, max_retries=0))
    assert forwarded_event(event, decision, task_id="t", now=NOW) == sample(name), "forwarding/write.py"
    assert hasattr(CallbackSender, name), "testing/callbacks.py"


def test_every_trigger_has_its_row_and_is_an_events_or_reserved():
    assert TRANSITIONS.keys() == {*Trigger}, "core/state_machine.py, TRANSITIONS"
    of_events = {str(entry.trigger(parse_event(sample(name)))) for name, entry in EVENT_TYPES.items()}
    unnamed = {trigger.value for trigger in Trigger} - of_events - {Trigger.CUSTOM.value}
    assert {name for name in unnamed if re.fullmatch(EVENT_NAME, name)} == set(), "core/events.py, _RESERVED"


def test_every_state_has_its_signal_or_none_on_purpose():
    assert _SIGNALS.keys() == {*TaskState}, "engine/handlers.py, _SIGNALS"
    assert {entry.signal for entry in EVENT_TYPES.values()} <= {*_SIGNALS.values(), signals.task_failed}


def row(host: Host, task_id: str) -> dict[str, Any]:
    table = host.state.task_model.__table__
    with host.engine.connect() as connection:
        return dict(connection.execute(sa.select(table).where(table.c.task_id == task_id)).mappings().one())
