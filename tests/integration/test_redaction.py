"""Secrets have one door: one of each kind is planted, and looked for in everything that the extension shows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook.config.settings import load_settings
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.core.callback_urls import CallbackURLs
from flask_contenthub_webhook.core.signatures import Credentials
from flask_contenthub_webhook.creators.protocol import Job
from flask_contenthub_webhook.errors import ConfigurationError
from flask_contenthub_webhook.runtime.refusals import Refusal
from flask_contenthub_webhook.web.batches import split_batch
from tests.support.host import PREFIX, Host, completed, encode, failed, make_host
from tests.support.pages import AT, open_to_all

KINDS = {
    "api_key parameter": "planted-api-key",
    "sig parameter": "planted-sig",
    "access_token parameter": "planted-access-token",
    "token parameter": "planted-token",
    "X-Amz-Signature parameter": "planted-amz",
    "userinfo of a URL": "planted-userinfo",
    "user of a URL": "planted-user",
    "nested password": "planted-password",
    "nested key": "planted-nested-key",
    "header": "planted-header",
    "token of an item": "planted-item-token",
    "escaped token of an item": "planted-escaped-token",
    "secret setting": "planted-secret-setting-of-forty-characters",
    "API key setting": "planted-creator-key",
    "userinfo setting": "planted-setting-userinfo",
}
QUERY = (
    f"attempt=1&api_key={KINDS['api_key parameter']}&sig={KINDS['sig parameter']}"
    f"&access_token={KINDS['access_token parameter']}&token={KINDS['token parameter']}"
    f"&X-Amz-Signature={KINDS['X-Amz-Signature parameter']}"
)
URL = f"https://gateway:{KINDS['userinfo of a URL']}@gateway.example/hook?{QUERY}"
USER_URL = f"https://{KINDS['user of a URL']}@gateway.example/hook"
OPTIONS = {"style": "calm", "deep": [{"password": KINDS["nested password"], "key": [KINDS["nested key"]]}], "at": URL}
FORWARD_SECRET = "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw=="
HEADERS = {
    "Authorization": f"Bearer {KINDS['header']}",
    "X-Api-Key": KINDS["header"],
    "Referer": f"/somewhere?{QUERY}",
    "X-Original-URI": URL,
}
NOWHERE = f"http://hub:{KINDS['userinfo setting']}@127.0.0.1:1"


def found(text: str) -> list[str]:
    """The kinds of planted secrets in a text."""
    return [kind for kind, secret in KINDS.items() if secret in text] + ["forward secret"] * (FORWARD_SECRET in text)


@dataclass
class Planted:
    """A host full of secrets, and what it has logged so far."""

    host: Host
    task_id: str
    forward_ids: list[int]
    records: list[logging.LogRecord]


class _Keep(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """The commands, pages and logs of all the tests here look at one host."""
    records: list[logging.LogRecord] = []
    keep, loggers = _Keep(records), [logging.getLogger(name) for name in ("flask_contenthub_webhook", "httpx")]
    for logger in loggers:
        logger.addHandler(keep)
        logger.setLevel(logging.DEBUG)

    def extras(app: Flask) -> None:
        open_to_all(app)
        WebhookMetrics(app, path="/metrics", permission=lambda: True)

    host = make_host(
        f"sqlite:///{tmp_path_factory.mktemp('redaction') / 'test.db'}",
        db=SQLAlchemy(),
        after=extras,
        WEBHOOK_SECRET_KEY=KINDS["secret setting"],
        WEBHOOK_CALLBACK_BASE_URL=NOWHERE,
        WEBHOOK_SUBMIT_THREADS=0,
        WEBHOOK_FORWARD_URLS=[URL.replace(f"gateway:{KINDS['userinfo of a URL']}@", "")],
        WEBHOOK_FORWARD_SECRET=FORWARD_SECRET,
        CREATOR_API_BASE_URL=NOWHERE,
    )
    try:
        yield _planted(host, records)
    finally:
        for logger in loggers:
            logger.removeHandler(keep)
            logger.setLevel(logging.NOTSET)
        host.close()


def _planted(host: Host, records: list[logging.LogRecord]) -> Planted:
    now = host.clock()
    task_id = host.add_task(
        callback_url=URL,
        creator_options=OPTIONS,
        forward_to=[{"url": URL}, {"url": USER_URL}],
        error_message=f"nobody answers at {URL}",
        topic=f"see {URL}",
    )
    host.add_task(
        status="pending", callback_url=URL, creator_options=OPTIONS, next_submit_at=now, topic="T", requirements="R"
    )
    host.add_task(creator_task_id="asked-about", callback_url=URL, next_poll_at=now)
    host.post(task_id, completed(task_id), attempt=1, headers=HEADERS)
    for body in _batches(task_id):
        host.clock.advance(600)  # each refusal is a sample of its own
        host.post_batch([], raw=body)
        host.clock.advance(600)
        host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}?{QUERY}", headers=HEADERS)
        host.clock.advance(600)
        host.post(task_id, body, headers=HEADERS)
    other = host.add_task(forward_to=[{"url": URL}])
    host.post(other, failed(other, f"no way to reach {URL}"))
    host.publisher.broken = True
    third = host.add_task()
    host.post(third, completed(third))
    host.publisher.broken = False
    forwards, attempts = host.state.models.forward, host.state.models.forward_attempt
    common = {"delivery_id": 1, "message_id": "msg_1", "body": b"{}", "created_at": now, "task_id": task_id}
    with host.app.app_context():
        rows = [
            forwards(**common, event="completed", url=url, status="dead", tries=1, finished_at=now)
            for url in (URL, USER_URL)
        ]
        host.db.session.add_all(rows)
        host.db.session.add(host.state.delivery_model(**_delivery(task_id, now)))
        host.db.session.flush()
        tried = {"number": 1, "started_at": now, "duration_ms": 12.4, "address": "203.0.113.7"}
        ids = [row.id for row in rows]
        host.db.session.add_all(
            attempts(
                **tried,
                forward_id=id_,
                error=f"The receiver answered 302: to {URL}",
                request_headers=HEADERS,
                response_headers={"Location": URL, **HEADERS},
                response_body=f"Found. See {URL}",
            )
            for id_ in ids
        )
        host.db.session.commit()
    return Planted(host, task_id, ids, records)


def _delivery(task_id: str, now: datetime) -> dict[str, Any]:
    """A row of an earlier version, which knew fewer names."""
    return {
        "task_id": task_id,
        "source": "webhook",
        "verdict": "failed",
        "received_at": now,
        "error": f"publish: HTTPError: 500 for {URL}",
        "failed_tries": [
            {
                "number": 1,
                "at": now.isoformat(),
                "ms": 2.0,
                "handler": "publish",
                "error": f"publish: HTTPError: 500 for {URL}",
                "traceback": f"Traceback:\nHTTPError: 500 for {URL}",
            }
        ],
        "reason": f"see {URL}",
        "headers": HEADERS,
        "body": encode({"note": f"see {URL}"}).replace(b"&", b"\\u0026"),
    }


def _batches(task_id: str) -> list[bytes]:
    token, escaped = KINDS["token of an item"], KINDS["escaped token of an item"]
    items = [{**completed(task_id), "token": token}]
    whole = encode({"events": items})
    return [
        whole,
        whole[: whole.index(token.encode()) + len(token)],
        b'{"events": [{"\\u0074oken" : "\\"' + escaped.encode() + b'"}, [}',
        json.dumps({"events": items}, indent=2).encode("utf-16"),
    ]


# --- the commands ------------------------------------------------------------------------------------------------

ALL_DELIVERIES, ALL_FORWARDS = object(), object()
READ: dict[str, list[tuple[object, ...]]] = {
    "alerts": [(), ("--check",)],
    "audit": [(), ("--whole-history",)],
    "conform": [(f"{NOWHERE}/callback/1", "--secret", KINDS["secret setting"], "--scheme", "url")],
    "deliveries list": [()],
    "deliveries replay": [(1,), ("--verdict", "rejected"), ("--verdict", "rejected", "--yes")],
    "deliveries show": [(ALL_DELIVERIES,)],
    "doctor": [("--timeout", "1")],
    "forwards list": [()],
    "forwards replay": [("--status", "dead"), ("--status", "dead", "--yes")],
    "forwards show": [(ALL_FORWARDS,)],
    "migrations install": [("--directory", "migrations", "--dry-run")],
    "migrations plan": [(), ("--json",)],
    "openapi": [()],
    "purge": [(), ("--older-than", "3650", "--yes")],
    "reconcile": [("--once",)],
    "recover": [("--since", "2h")],
    "send": [("asked-about",), ("asked-about", "--url", URL, "--scheme", "none")],
    "stats": [()],
    "hand-over": [()],
    "tasks": [()],
    "tasks show": [("asked-about",), ("TASK",)],
}
PRINT_A_SECRET_ON_PURPOSE = {"secret", "url"}
ALWAYS_JSON = {"openapi"}
RUN_UNTIL_THEY_ARE_STOPPED = {"scheduler", "simulate", "worker"}  # they print log lines and counts


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if not isinstance(command, click.Group):
            yield " ".join((*path, name))
            continue
        if command.invoke_without_command:
            yield " ".join((*path, name))
        yield from _commands(command, (*path, name))


def test_every_command_is_among_those_looked_at(planted: Planted):
    group = planted.host.app.cli.commands["webhook"]
    assert isinstance(group, click.Group)

    assert set(_commands(group)) == {*READ, *PRINT_A_SECRET_ON_PURPOSE, *RUN_UNTIL_THEY_ARE_STOPPED}


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("command", READ)
def test_no_command_shows_a_secret(
    planted: Planted, command: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    host = planted.host
    for given in READ[command]:
        for arguments in _expanded(planted, given):
            line = [
                *command.split(),
                *map(str, arguments),
                *(["--json"] if as_json and command not in ALWAYS_JSON else []),
            ]
            result = host.app.test_cli_runner().invoke(args=["webhook", *line])

            assert result.exit_code in {0, 1}, (line, result.output)
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
            assert found(result.output) == [], (line, result.output)


def _expanded(planted: Planted, arguments: tuple[object, ...]) -> list[tuple[object, ...]]:
    if ALL_DELIVERIES in arguments:
        return [(row.id,) for row in planted.host.deliveries()]
    if ALL_FORWARDS in arguments:
        return [(id_,) for id_ in planted.forward_ids]
    return [tuple(planted.task_id if argument == "TASK" else argument for argument in arguments)]


# --- the pages ---------------------------------------------------------------------------------------------------

PAGES: dict[str, tuple[str, ...]] = {
    "overview": ("/?range=all",),
    "deliveries": ("/deliveries?range=all",),
    "new_deliveries": ("/deliveries/new?after=0&range=all",),
    "delivery": ("/deliveries/{delivery_id}",),
    "body": ("/deliveries/{delivery_id}/body",),
    "task": ("/task?id={task_id}", "/task?id=asked-about"),
    "tasks": ("/tasks", "/tasks?show=failed", "/tasks?show=all"),
    "confirm": ("/task/cancel?id={task_id}", "/task/cancel?id=asked-about"),
    "failures": ("/failures",),
    "forwards": ("/forwards", "/forwards?status=dead&like=1"),
    "forward": ("/forwards/1", "/forwards/2"),
    "count_resend": ("/forwards/resend?status=dead", "/forwards/resend?status=dead&like=1"),
    "dry_run": ("/replay?verdict=rejected",),
    "find": ("/find?q={task_id}", "/find?q=1"),
}
ONLY_POSTED_TO = {"act", "test_event", "replay_one", "replay_many", "acknowledge_failure", "resend_one", "resend_many"}


def test_every_page_is_among_those_looked_at(planted: Planted):
    rules = [rule for rule in planted.host.app.url_map.iter_rules() if rule.rule.startswith(AT)]
    names = {rule.endpoint.rpartition(".")[2] for rule in rules}

    assert names == {*PAGES, *ONLY_POSTED_TO, "static"}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_shows_a_secret(planted: Planted, page: str):
    client, ids = planted.host.app.test_client(), [row.id for row in planted.host.deliveries()]
    for path in PAGES[page]:
        for delivery_id in ids if "{delivery_id}" in path else ids[:1]:
            answer = client.get(AT + path.format(delivery_id=delivery_id, task_id=planted.task_id))

            assert answer.status_code in {200, 204, 303, 404, 409}, (path, answer.text)
            shown = answer.get_data().decode("utf-8", "replace").replace("\0", "")
            assert found(shown) == [], (path, shown)


def test_the_metrics_name_none(planted: Planted):
    answer = planted.host.app.test_client().get("/metrics")

    assert answer.status_code == 200
    assert found(answer.text) == []


# --- logs, errors and representations ----------------------------------------------------------------------------


def test_no_log_line_holds_a_secret(planted: Planted):
    """Those of the tests above, and of a database that fails in the middle of the work."""
    host = planted.host
    task_id = host.add_task(callback_url=URL, creator_options=OPTIONS, status="pending", next_submit_at=host.clock())
    runner = host.app.test_cli_runner()
    runner.invoke(args=["webhook", "hand-over"])

    def fail(_c: Any, _cursor: Any, statement: str, _parameters: Any, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE")):
            raise sa.exc.OperationalError(statement, {"url": URL, "options": json.dumps(OPTIONS)}, Exception("gone"))

    sa.event.listen(host.engine, "before_cursor_execute", fail)
    try:
        host.clock.advance(600)
        host.post(task_id, completed(task_id), headers=HEADERS)
        host.post(task_id, _batches(task_id)[0], headers=HEADERS)
        host.post_batch([], raw=_batches(task_id)[0])
        for name in ("hand-over", "reconcile --once"):
            runner.invoke(args=["webhook", *name.split()])
    finally:
        sa.event.remove(host.engine, "before_cursor_execute", fail)

    lines = [_line(record) for record in planted.records]
    assert len(lines) > 5
    assert any("Traceback" in line for line in lines)
    assert [line for line in lines if found(line)] == []


def _line(record: logging.LogRecord) -> str:
    return f"{logging.Formatter().format(record)} {vars(record)}"


def test_no_representation_holds_a_secret(planted: Planted):
    host, now = planted.host, planted.host.clock()
    state = host.state
    settings = state.settings
    keyed = load_settings({"CREATOR_API_KEY": KINDS["API key setting"], "WEBHOOK_SECRET_KEY": KINDS["secret setting"]})
    (item,) = split_batch(json.loads(_batches("t")[0]))
    refusal = Refusal(
        code="c", message="m", received_at=now, task_id=None, headers={"X": KINDS["header"]}, body=_batches("t")[0]
    )
    things = [
        *(state, settings, keyed, settings.callback_urls, state.database, state.creator, host.webhook, state.post),
        *(settings.forward_to, state.outbox, state.store, state.refusals, host.app),
        CallbackURLs(NOWHERE, "", KINDS["secret setting"]),
        Credentials(headers=HEADERS, body=_batches("t")[0], token=KINDS["token parameter"]),
        Job(creator_task_id="t", callback_url=URL, options=OPTIONS),
        *(item, refusal, host.task(planted.task_id), *host.deliveries()),
    ]

    assert [(type(thing).__name__, found(repr(thing) + str(thing))) for thing in things if found(repr(thing))] == []
    assert "hub:***@127.0.0.1" in repr(settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CREATOR_API_BASE_URL", f"{NOWHERE}/?x=1"),
        ("CREATOR_API_BASE_URL", f"ftp://hub:{KINDS['userinfo setting']}@host"),
        ("CREATOR_API_BASE_URL", f"hub:{KINDS['userinfo setting']}@host"),
        ("CREATOR_API_BASE_URL", f"http://hub:a/{KINDS['userinfo setting']}@host?x=1"),
        ("CREATOR_API_BASE_URL", f"http://host/?api_key={KINDS['api_key parameter']}"),
        ("WEBHOOK_CALLBACK_BASE_URL", URL),
        ("WEBHOOK_CALLBACK_BASE_URL", f"https://{KINDS['user of a URL']}@host/?a=b"),
        ("WEBHOOK_FORWARD_URLS", [URL]),
        ("WEBHOOK_ALLOWED_IPS", URL),
        ("WEBHOOK_SECRET_KEY", KINDS["secret setting"].encode()),
    ],
)
def test_a_configuration_error_holds_no_secret(key: str, value: object):
    with pytest.raises(ConfigurationError) as caught:
        load_settings({key: value}, {})

    assert key in str(caught.value)
    assert found(str(caught.value)) == []


def test_what_is_believed_keeps_its_words(sqlite_host: Host):
    """A delivery that can be replayed holds the very bytes that came."""
    task_id = sqlite_host.add_task()
    body = encode({**completed(task_id), "result": {"content": "x", "token": "part of the article"}, "event": "odd"})

    sqlite_host.post(task_id, body)
    sqlite_host.post(task_id, completed(task_id, 'say {"token": "part of the article"}'))

    assert [b"part of the article" in row.body for row in sqlite_host.deliveries()] == [True, True]
