"""nginx runs, gunicorn does not: callbacks get 502, and no log has their token; afterwards each has its effect."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from flask_contenthub_webhook.core.signatures import sign_url
from tests.support.nginx import NJS, PROGRAM, Nginx
from tests.support.postgres import PostgresServer
from tests.support.raw_http import callback, completed, post, send
from tests.support.web_server import serve

from .parts import say

_SECRET = "a-secret-of-the-drill-that-has-forty-letters"
_CALLBACKS = 20


def drill(directory: Path) -> None:
    """Run the drill, or say that there is no nginx with njs (Debian: nginx, libnginx-mod-http-js)."""
    if PROGRAM is None or NJS is None:
        say("skipped", "nginx with njs is not on this machine")
        return
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    env = {"WEBHOOK_SECRET_KEY": _SECRET, "WEBHOOK_TRUSTED_PROXIES": "127.0.0.1", "TEST_HOST_PROXY_FIX": "1"}
    with (
        PostgresServer() as postgres,
        serve(postgres.create_database(), directory, env=env) as web,
        Nginx(web.port, authority) as nginx,
    ):
        tokens = {task_id: sign_url(_SECRET, task_id, 1) for task_id in web.database.add_tasks(_CALLBACKS)}

        def send_all() -> list[int]:
            return [
                send(
                    nginx.port,
                    post(callback(task_id, f"attempt=1&token={token}"), completed(task_id)),
                    wrap=lambda plain: trusting.wrap_socket(plain, server_hostname="127.0.0.1"),
                ).status
                for task_id, token in tokens.items()
            ]

        web.gunicorn.stop()
        before = len(nginx.logs())
        away = send_all()
        logged = nginx.logs()[before:]
        web.gunicorn.start()
        back = send_all()
        effects = web.database.contents(*tokens)

    say("answers while gunicorn is away", f"{len(away)} x {set(away)}")
    say("bytes of nginx's logs, with a token", f"{len(logged)}, {sum(token in logged for token in tokens.values())}")
    say("answers afterwards", f"{len(back)} x {set(back)}")
    say("tasks with one effect", sum(count == 1 for count in effects.values()))

    assert set(away) == {502}
    assert not any(token in logged for token in tokens.values())
    assert set(back) == {200}
    assert set(effects.values()) == {1}
