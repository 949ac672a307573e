"""Plain lines of the log, as a host without a JSON formatter sees them."""

from __future__ import annotations

import logging

import pytest

from flask_contenthub_webhook.core.logs import get_logger
from tests.support.host import PREFIX, Host, completed, failed

ADDRESS = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "flask_contenthub_webhook")


def test_an_applied_event_names_task_attempt_and_address(host: Host, caplog: pytest.LogCaptureFixture):
    task_id = host.add_task()

    host.post(task_id, completed(task_id), attempt=1, environ_base=ADDRESS)
    host.post(task_id, failed(task_id), attempt=1, environ_base=ADDRESS)

    first, second = [line for line in caplog.messages if line.startswith("Event")]
    assert first == f"Event completed: processed [task {task_id}, attempt 1, delivery 1, by webhook, from 192.0.2.7]"
    assert second.startswith("Event failed: ignored (")
    assert f"task {task_id}, attempt 1" in second


def test_a_refusal_names_task_attempt_address_and_reason(host: Host, caplog: pytest.LogCaptureFixture):
    task_id = host.add_task()

    host.app.test_client().post(f"{PREFIX}/callback/{task_id}?attempt=1&token=x", json={}, environ_base=ADDRESS)

    (line,) = [line for line in caplog.messages if line.startswith("Callback refused")]
    assert line.startswith("Callback refused: 401 signature_invalid: ")
    assert line.endswith(f"[task {task_id}, attempt 1, from 192.0.2.7]")


def test_a_failed_handler_names_task_attempt_event_and_handler(host: Host, caplog: pytest.LogCaptureFixture):
    task_id = host.add_task()
    host.publisher.broken = True

    host.post(task_id, completed(task_id), attempt=1)

    (line,) = [line for line in caplog.messages if line.startswith("A handler failed")]
    assert line.endswith(f"[task {task_id}, attempt 1, event completed, handler Publisher]")


def test_a_strangers_task_id_cannot_forge_a_line(host: Host, caplog: pytest.LogCaptureFixture):
    host.app.test_client().post(f"{PREFIX}/callback/a%0AERROR%20forged%25s?token=x", json={}, environ_base=ADDRESS)

    (line,) = [line for line in caplog.messages if line.startswith("Callback refused")]
    assert "\n" not in line
    assert r"[task a\nERROR forged%s, from 192.0.2.7]" in line


def test_a_message_with_a_percent_sign_and_no_arguments_stays_as_it_is(caplog: pytest.LogCaptureFixture):
    logger = get_logger("flask_contenthub_webhook.example")
    get_logger("flask_contenthub_webhook.example")

    logger.warning("at 100%", extra={"task_id": "t"})
    logger.warning("at 100%")

    assert caplog.messages == ["at 100% [task t]", "at 100%"]
