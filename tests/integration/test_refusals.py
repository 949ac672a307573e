"""Refused requests are counted under the time at which they came, also where no other request follows."""

from __future__ import annotations

import io
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from flask_contenthub_webhook.signals import alert_changed, callback_rejected
from tests.support.answers import code
from tests.support.host import PREFIX, SECRET, Host, completed, encode
from tests.support.raw_http import callback, post, send_together
from tests.support.web_host import db
from tests.support.web_server import WebServer, serve

FORGED = 1_000
_DELIVERIES = db.metadata.tables["webhook_deliveries"]


def forge(host: Host, count: int, *, every: float = 0.04) -> None:
    for _ in range(count):
        host.post("t", completed("t"), path=f"{PREFIX}/callback/t?token=forged")
        host.clock.advance(every)


def counted(web: WebServer) -> int:
    with web.database.engine.connect() as connection:
        query = sa.select(sa.func.coalesce(sa.func.sum(_DELIVERIES.c.occurrences), 0))
        return int(connection.execute(query.where(_DELIVERIES.c.verdict == "rejected")).scalar_one())


def flood(web: WebServer) -> None:
    request = post(callback("t", "token=forged"), b'{"event":"completed","taskId":"t","result":{"content":"x"}}')
    for _ in range(FORGED // 100):
        assert {answer.status for answer in send_together(web.port, [request] * 100)} == {401}


@pytest.mark.parametrize("threads", [1, 4])
def test_a_flood_over_four_processes_that_are_stopped_at_once_is_counted_whole(database_url, tmp_path, threads):
    with serve(database_url, tmp_path, workers=4, threads=threads, env={"WEBHOOK_SECRET_KEY": SECRET}) as web:
        flood(web)
        web.gunicorn.stop()

        assert counted(web) == FORGED
        assert web.database.count("webhook_deliveries") <= 4 * 2


def test_a_flood_that_nothing_follows_is_counted_within_ten_seconds_and_raises_the_alert(hosts, database_url, tmp_path):
    env = {"WEBHOOK_SECRET_KEY": SECRET, "WEBHOOK_SCHEDULER_ENABLED": "1", "WEBHOOK_ALERT_WINDOW": "30"}
    host = hosts(database_url, create_tables=False)
    with serve(database_url, tmp_path, workers=4, env=env) as web:
        flood(web)
        ended = time.monotonic()
        while (seen := counted(web)) < FORGED and time.monotonic() - ended < 10:
            time.sleep(0.2)

        assert seen == FORGED
        while not (raised := is_raised(host)) and time.monotonic() - ended < 20:
            time.sleep(0.2)
        assert raised


def is_raised(host: Host) -> bool:
    with host.app.app_context():
        return {alert.name: alert.raised for alert in host.webhook.alerts()}["signature_failures"]


def changes_of(host: Host) -> list[tuple[str, bool]]:
    changes: list[tuple[str, bool]] = []
    host.connect(alert_changed, lambda app, *, alert, **extra: changes.append((alert.name, alert.raised)))
    return changes


def check(host: Host) -> None:
    with host.app.app_context():
        host.webhook.check_alerts()


def test_the_alert_is_raised_at_the_time_of_the_flood_and_at_no_other(host: Host):
    told = changes_of(host)
    forge(host, 100)
    host.state.refusals.flush()
    check(host)
    assert told == [("signature_failures", True)]

    for _ in range(60):
        host.clock.advance(60)
        check(host)
    forge(host, 1)
    check(host)

    assert told == [("signature_failures", True), ("signature_failures", False)]


def test_what_is_written_hours_later_is_booked_when_it_came(host: Host):
    told, began = changes_of(host), host.clock.now
    forge(host, 100)
    host.clock.advance(7200)
    forge(host, 1)
    check(host)

    flooded, last = host.deliveries()
    assert (flooded.occurrences, last.occurrences) == (100, 1)
    assert flooded.received_at == began
    assert flooded.processed_at == began + timedelta(seconds=99 * 0.04)
    assert told == []


def test_a_short_alert_window_has_rows_as_short(hosts: Any, sqlite_url: str):
    """A row counts evenly over its time: where that is longer than the alert's, a flood at its end would be missed."""
    host = hosts(sqlite_url, WEBHOOK_ALERT_WINDOW=60)
    told = changes_of(host)
    forge(host, 1)
    host.clock.advance(270)
    forge(host, 100)
    host.state.refusals.flush()
    check(host)
    assert told == [("signature_failures", True)]


def test_what_the_database_does_not_take_is_written_once_it_does(host: Host):
    began, down = host.clock.now, [True]

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if down and "webhook_deliveries" in statement:
            raise OperationalError(statement, None, Exception("the disk is full"))

    sa.event.listen(host.engine, "before_cursor_execute", refuse)
    for _ in range(30):  # two and a half hours: more windows than are kept apart
        forge(host, 10, every=30)
    assert not host.state.refusals.flush()
    down.clear()
    assert host.deliveries() == []

    assert host.state.refusals.flush()
    assert host.state.refusals.flush()

    rows = host.deliveries()
    assert sum(row.occurrences for row in rows) == 300
    assert len(rows) <= 12
    assert (rows[0].received_at, rows[0].occurrences) == (began, 10)
    assert [row.received_at for row in rows] == sorted({row.received_at for row in rows})


class Cut(io.BytesIO):
    """A body whose sender is gone."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the connection was cut")


@pytest.mark.parametrize(
    ("path", "schemes", "before_the_body"),
    [
        ("callback/t", "url,contenthub", True),
        ("callback/t?token=", "url,contenthub", False),
        ("callback/t?token=x", "contenthub", True),
        ("callbacks", "contenthub,github", True),
        ("callbacks", "url,contenthub", False),
    ],
)
@pytest.mark.parametrize("header", [None, "X-Webhook-Signature", "svix-signature"])
def test_without_a_token_and_a_signature_the_body_is_not_read(
    hosts: Any, sqlite_url: str, path: str, schemes: str, before_the_body: bool, header: str | None
):
    host = hosts(sqlite_url, WEBHOOK_SIGNATURE_SCHEMES=schemes)

    answer = host.app.test_client().post(
        f"{PREFIX}/{path}",
        headers={header: ""} if header else {},
        environ_overrides={"wsgi.input": Cut(), "CONTENT_LENGTH": "1000"},
        content_type="application/json",
    )

    carries = header == "X-Webhook-Signature"  # svix-* is of a scheme that is not used here
    wanted = (403, "signature_missing") if before_the_body and not carries else (400, "invalid_json")
    assert (answer.status_code, code(answer)) == wanted
    assert [row.error for row in host.deliveries()] == [wanted[1]]


def test_where_no_signature_is_required_the_body_is_read(hosts: Any, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    task_id = host.add_task()

    assert host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}").status_code == 200


@pytest.mark.parametrize("text", ["\0", "203.0.113.9\0", "\ud800"], ids=["NUL", "NUL at the end", "surrogate"])
@pytest.mark.parametrize("good", [True, False])
def test_text_that_no_database_takes_is_replaced_wherever_it_goes(
    host: Host, caplog: pytest.LogCaptureFixture, text: str, good: bool
):
    """Behind ProxyFix the address is a header, and a header may hold any byte."""
    task_id, told = host.add_task(), list[Any]()
    host.connect(callback_rejected, lambda app, *, request, **extra: told.append(request))
    path = host.path(task_id) if good else f"{PREFIX}/callback/a%00b?token=%00&attempt=%00"
    environ = {"REMOTE_ADDR": text, "HTTP_USER_AGENT": text, "HTTP_X_ANY": text}

    answer = host.post(task_id, completed(task_id), path=path, environ_overrides=environ)

    assert answer.status_code == (200 if good else 401)
    (row,) = host.deliveries()
    kept = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert (row.remote_addr, row.headers["User-Agent"], row.headers["X-Any"]) == (kept, kept, kept)
    if not good:
        assert told[0]["remote_addr"] == told[0]["user_agent"] == kept
        assert told[0]["path"] == f"{PREFIX}/callback/a\ufffdb"
        assert not any(mark in str(vars(record)) for record in caplog.records for mark in ("\0", r"\x00", r"\ud800"))


def test_a_batch_may_come_from_such_an_address(host: Host):
    task_id = host.add_task()
    body = encode({"events": [{**completed(task_id), "token": host.token(task_id)}, {}]})

    answer = host.app.test_client().post(
        f"{PREFIX}/callbacks", data=body, content_type="application/json", environ_overrides={"REMOTE_ADDR": "\0"}
    )

    assert answer.json is not None
    assert [item["success"] for item in answer.json["results"]] == [True, False]
    assert [row.remote_addr for row in host.deliveries()] == ["\ufffd"] * 2
