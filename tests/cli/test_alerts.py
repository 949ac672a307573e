"""`flask webhook alerts`: where the alerts stand, for people, for programs and for whoever looks at the exit code."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from flask_contenthub_webhook.signals import alert_changed
from tests.cli.conftest import run, run_json


@pytest.fixture
def silent(host):
    """A host whose creator has not called back for an hour."""
    handed_over = host.clock.now - timedelta(hours=1)
    host.add_task(callback_url="https://hub.example/callback", submitted_at=handed_over)
    return host


def test_before_the_first_check_it_says_so(sqlite_host):
    result = run(sqlite_host, "alerts")

    assert result.exit_code == 1  # nobody knows whether one should be raised
    assert result.stdout.count("never") == 3
    assert "flask webhook scheduler" in result.stdout


def test_it_measures_nothing_by_itself_and_checks_when_it_is_asked_to(silent):
    told = []
    silent.connect(alert_changed, lambda app, *, alert, **extra: told.append(alert.name))

    assert "RAISED" not in run(silent, "alerts").stdout
    checked = run(silent, "alerts", "--check")
    again = run(silent, "alerts")

    assert (checked.exit_code, again.exit_code) == (1, 1)
    for result in (checked, again):
        assert "RAISED" in result.stdout
        assert "No callback has come for 30 min; tasks that waited for one: 1." in result.stdout
    assert told == ["silence"]


def test_the_document_has_every_alert(silent):
    result = run(silent, "alerts", "--check", "--json")
    alerts = {alert["name"]: alert for alert in json.loads(result.stdout)["alerts"]}

    assert result.exit_code == 1
    assert list(alerts) == ["failure_rate", "silence", "signature_failures"]
    assert [alert["raised"] for alert in alerts.values()] == [False, True, False]
    assert (alerts["silence"]["value"], alerts["silence"]["window"]) == (1, 1800)
    assert alerts["silence"]["changed_at"] == alerts["silence"]["checked_at"]


def test_what_is_switched_off_is_shown_as_off(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_SILENCE_ALERT=0)
    run(host, "alerts", "--check")

    assert "WEBHOOK_SILENCE_ALERT is 0" in run(host, "alerts").stdout
    assert [alert["enabled"] for alert in run_json(host, "alerts")["alerts"]] == [True, False, True]
