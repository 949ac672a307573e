"""The guards together with what hosts put in front of them: CSRF protection, limiters, proxies, certificates."""

from __future__ import annotations

import base64
import importlib.util
import ssl
from collections.abc import Callable

import pytest
import trustme
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_contenthub_webhook.errors import ConfigurationError
from tests.support.host import PREFIX, Host, completed

Build = Callable[..., Host]


def send(host: Host, address: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
    """The answer to a good callback from an address."""
    task_id = host.add_task()
    answer = host.app.test_client().post(
        host.path(task_id),
        json=completed(task_id),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        environ_base={"REMOTE_ADDR": address},
    )
    assert answer.json is not None
    return answer.status_code, answer.json.get("outcome") or answer.json["error"]["code"]


PASSES = (200, "processed")
NOT_FROM_HERE = (403, "address_not_allowed")
NO_CERTIFICATE = (403, "client_certificate_required")


# --- CSRF --------------------------------------------------------------------------------------------------------


def protect(app: Flask) -> None:
    CSRFProtect(app)
    app.add_url_rule("/form", view_func=lambda: "posted", methods=["POST"], endpoint="form")


@pytest.mark.parametrize("order", ["before", "after"])
def test_callbacks_need_no_csrf_token_whichever_extension_comes_first(hosts: Build, sqlite_url: str, order: str):
    host = hosts(sqlite_url, **{order: protect})

    assert send(host) == PASSES


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_hosts_own_forms_stay_protected(hosts: Build, sqlite_url: str, order: str):
    host = hosts(sqlite_url, **{order: protect})
    send(host)

    assert host.app.test_client().post("/form").status_code == 400


def test_batches_need_no_csrf_token_either(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, after=protect)

    assert host.post_batch([], scheme="contenthub").status_code == 200


# --- the host's own limiter --------------------------------------------------------------------------------------


def limit_everything(app: Flask) -> None:
    Limiter(
        get_remote_address,
        app=app,
        default_limits=["1/hour"],
        application_limits=["2/hour"],
        storage_uri="memory://",
    )
    app.add_url_rule("/page", view_func=lambda: "page", endpoint="page")


@pytest.mark.parametrize("order", ["before", "after"])
def test_default_limits_of_the_host_let_callbacks_and_health_pass(hosts: Build, sqlite_url: str, order: str):
    host = hosts(sqlite_url, **{order: limit_everything})

    assert [send(host) for _ in range(3)] == [PASSES] * 3
    assert [host.post_batch([], scheme="contenthub").status_code for _ in range(3)] == [200] * 3
    assert [host.app.test_client().get(f"{PREFIX}/health").status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_hosts_own_pages_stay_limited(hosts: Build, sqlite_url: str, order: str):
    host = hosts(sqlite_url, **{order: limit_everything})
    send(host)

    assert [host.app.test_client().get("/page").status_code for _ in range(2)] == [200, 429]


def test_our_own_rate_still_counts_below_a_limiter_of_the_host(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, before=limit_everything, WEBHOOK_RATE_LIMIT="2/hour")

    assert [send(host)[0] for _ in range(3)] == [200, 200, 429]


def test_a_protection_that_cannot_exempt_a_blueprint_costs_no_page(
    hosts: Build, sqlite_url: str, caplog: pytest.LogCaptureFixture
):
    class OtherProtection:
        def exempt(self, view: Callable[..., object]) -> None:
            raise AttributeError(f"{view!r} is not a view")

    def protect_otherwise(app: Flask) -> None:
        app.extensions["csrf"] = OtherProtection()
        app.add_url_rule("/page", view_func=lambda: "page", endpoint="page")

    for order in ("before", "after"):
        host = hosts(sqlite_url, **{order: protect_otherwise})
        assert [host.app.test_client().get("/page").status_code for _ in range(2)] == [200, 200]
        assert send(host) == PASSES

    told = [record for record in caplog.records if "could not be exempted" in record.getMessage()]
    assert len(told) == 2


# --- rate --------------------------------------------------------------------------------------------------------


def test_the_rate_is_counted_by_client_address(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_RATE_LIMIT="2/hour")

    assert [send(host)[0] for _ in range(3)] == [200, 200, 429]
    assert send(host, "192.0.2.1") == PASSES


def test_the_rate_is_counted_with_a_limiter_of_the_hosts_own(hosts: Build, sqlite_url: str):
    def limit(app: Flask) -> None:
        Limiter(get_remote_address, app=app, storage_uri="memory://")

    host = hosts(sqlite_url, before=limit, WEBHOOK_RATE_LIMIT="2/hour")

    assert [send(host)[0] for _ in range(3)] == [200, 200, 429]


def test_a_limiter_that_is_registered_later_is_used_too(hosts: Build, sqlite_url: str):
    def limit(app: Flask) -> None:
        Limiter(get_remote_address, app=app, storage_uri="memory://")

    host = hosts(sqlite_url, after=limit, WEBHOOK_RATE_LIMIT="2/hour")

    assert [send(host)[0] for _ in range(3)] == [200, 200, 429]


def test_a_limiter_that_is_switched_off_takes_no_callback_away(hosts: Build, sqlite_url: str):
    def limit(app: Flask) -> None:
        Limiter(get_remote_address, app=app, storage_uri="memory://", enabled=False)

    host = hosts(sqlite_url, before=limit, WEBHOOK_RATE_LIMIT="2/hour")

    assert [send(host)[0] for _ in range(2)] == [200, 200]


def test_our_rate_limits_no_route_of_the_host(hosts: Build, sqlite_url: str):
    def route(app: Flask) -> None:
        app.add_url_rule("/", view_func=lambda: "home", endpoint="home")

    host = hosts(sqlite_url, before=route, WEBHOOK_RATE_LIMIT="1/hour")
    send(host)
    send(host)

    assert [host.app.test_client().get("/").status_code for _ in range(3)] == [200] * 3
    assert [host.app.test_client().get(f"{PREFIX}/health").status_code for _ in range(3)] == [200] * 3


def test_several_rates_hold_together(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_RATE_LIMIT="100/hour; 1/minute")

    assert [send(host)[0] for _ in range(2)] == [200, 429]


def test_a_rate_that_is_none_does_not_start(hosts: Build, sqlite_url: str):
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_RATE_LIMIT.*100/minute"):
        hosts(sqlite_url, WEBHOOK_RATE_LIMIT="often")


@pytest.mark.parametrize(
    ("uri", "strategy", "problem"),
    [
        ("nosuchstore://", None, "RATELIMIT_STORAGE_URI .*'nosuchstore'"),
        ("no scheme", None, "RATELIMIT_STORAGE_URI"),
        ("async+memory://", None, "RATELIMIT_STORAGE_URI"),
        ("memcached://127.0.0.1:11211", None, "RATELIMIT_STORAGE_URI .*needs pymemcache"),
        ("valkey://:hunter2@127.0.0.1", None, "RATELIMIT_STORAGE_URI .*needs valkey"),
        ("memcached://127.0.0.1:11211", "moving-window", "RATELIMIT_STRATEGY .*memcached"),
        (None, "moving_window", "RATELIMIT_STRATEGY .*moving-window"),
    ],
)
def test_a_rate_that_cannot_be_counted_does_not_start(
    hosts: Build, sqlite_url: str, uri: str | None, strategy: str | None, problem: str
):
    config = {"RATELIMIT_STORAGE_URI": uri, "RATELIMIT_STRATEGY": strategy}
    with pytest.raises(ConfigurationError, match=problem) as caught:
        hosts(sqlite_url, WEBHOOK_RATE_LIMIT="1/hour", **config)

    assert "hunter2" not in str(caught.value)
    hosts(sqlite_url, **config)


@pytest.mark.parametrize("strategy", ["moving-window", "sliding-window-counter", "fixed-window"])
def test_each_strategy_counts_in_memory(hosts: Build, sqlite_url: str, strategy: str):
    host = hosts(sqlite_url, WEBHOOK_RATE_LIMIT="1/hour", RATELIMIT_STRATEGY=strategy)

    assert [send(host)[0] for _ in range(2)] == [200, 429]


def test_a_storage_that_is_away_loses_no_callback(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_RATE_LIMIT="1/hour", RATELIMIT_STORAGE_URI="redis://127.0.0.1:1")

    assert [send(host) for _ in range(2)] == [PASSES, PASSES]


# --- address -----------------------------------------------------------------------------------------------------


def behind_one_proxy(app: Flask) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", PASSES),
        ("192.0.2.7", PASSES),
        ("2001:db8::5", PASSES),
        ("::ffff:10.1.2.3", PASSES),
        ("192.0.2.8", NOT_FROM_HERE),
        ("11.0.0.1", NOT_FROM_HERE),
        ("2001:db9::5", NOT_FROM_HERE),
        ("::ffff:11.0.0.1", NOT_FROM_HERE),
        ("::10.1.2.3", NOT_FROM_HERE),
        ("", NOT_FROM_HERE),
        ("unix:", NOT_FROM_HERE),
        ("10.1.2.3, 192.0.2.7", NOT_FROM_HERE),
        ("10.1.2.3:5000", NOT_FROM_HERE),
    ],
)
def test_only_listed_addresses_pass_and_what_cannot_be_checked_does_not(
    hosts: Build, sqlite_url: str, address: str, expected: tuple[int, str]
):
    host = hosts(sqlite_url, WEBHOOK_ALLOWED_IPS="10.0.0.0/8, 192.0.2.7, 2001:db8::/32")

    assert send(host, address) == expected


def test_a_list_of_mapped_addresses_means_the_plain_ones(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_ALLOWED_IPS="::ffff:10.0.0.0/104")

    assert send(host, "::ffff:10.1.2.3") == PASSES


@pytest.mark.parametrize("name", ["X_Forwarded_For", "Forwarded", "X_Real_IP", "True_Client_IP"])
def test_no_header_changes_the_address_by_itself(hosts: Build, sqlite_url: str, name: str):
    host = hosts(sqlite_url, WEBHOOK_ALLOWED_IPS="10.0.0.0/8")

    assert send(host, "203.0.113.9", **{name: "10.1.2.3"}) == NOT_FROM_HERE


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("10.1.2.3", PASSES),
        ("203.0.113.9, 10.1.2.3", PASSES),
        ("203.0.113.9", NOT_FROM_HERE),
        ("10.1.2.3, 203.0.113.9", NOT_FROM_HERE),  # the client wrote the first one itself
        ("garbage", NOT_FROM_HERE),
    ],
)
def test_behind_proxyfix_only_what_the_proxy_added_counts(
    hosts: Build, sqlite_url: str, forwarded: str, expected: tuple[int, str]
):
    host = hosts(sqlite_url, after=behind_one_proxy, WEBHOOK_ALLOWED_IPS="10.0.0.0/8")

    assert send(host, "203.0.113.1", X_Forwarded_For=forwarded) == expected


# --- certificate -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate() -> bytes:
    """The DER of a client certificate."""
    issued = trustme.CA().issue_cert("creator.example", common_name="Creator")
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


@pytest.fixture(scope="module")
def other_certificate() -> bytes:
    issued = trustme.CA().issue_cert("evil.example", common_name="Evil")
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def rfc9440(der: bytes) -> str:
    return f":{base64.b64encode(der).decode()}:"


def fingerprint(der: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(der).hexdigest()}"


@pytest.mark.parametrize(
    "listed", ["any", "dns:creator.example", "CN:creator", "fingerprint", "dns:x,dns:creator.example"]
)
def test_a_listed_certificate_from_a_trusted_proxy_passes(
    hosts: Build, sqlite_url: str, certificate: bytes, listed: str
):
    certs = fingerprint(certificate) if listed == "fingerprint" else listed
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS=certs, WEBHOOK_TRUSTED_PROXIES="10.0.0.1")

    assert send(host, "10.0.0.1", Client_Cert=rfc9440(certificate)) == PASSES


@pytest.mark.parametrize("listed", ["any", "dns:creator.example"])
def test_the_header_of_anybody_else_proves_nothing(hosts: Build, sqlite_url: str, certificate: bytes, listed: str):
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS=listed, WEBHOOK_TRUSTED_PROXIES="10.0.0.1")

    assert send(host, "203.0.113.9", Client_Cert=rfc9440(certificate)) == NO_CERTIFICATE


def test_without_trusted_proxies_the_header_of_nobody_proves_anything(
    hosts: Build, sqlite_url: str, certificate: bytes
):
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS="any")

    assert send(host, "127.0.0.1", Client_Cert=rfc9440(certificate)) == NO_CERTIFICATE


@pytest.mark.parametrize("listed", ["dns:creator.example", "cn:creator", "fingerprint"])
def test_an_unlisted_certificate_does_not_pass(
    hosts: Build, sqlite_url: str, certificate: bytes, other_certificate: bytes, listed: str
):
    certs = fingerprint(certificate) if listed == "fingerprint" else listed
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS=certs, WEBHOOK_TRUSTED_PROXIES="10.0.0.1")

    assert send(host, "10.0.0.1", Client_Cert=rfc9440(other_certificate)) == NO_CERTIFICATE


@pytest.mark.parametrize("header", ["", "::", ":AAAA", "AAAA", ":not base64!:", ":AAAA:", ":AAAA:, :AAAA:"])
@pytest.mark.parametrize("listed", ["dns:creator.example", "cn:creator", f"sha256:{'0' * 64}"])
def test_a_header_that_is_no_certificate_does_not_pass(hosts: Build, sqlite_url: str, header: str, listed: str):
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS=listed, WEBHOOK_TRUSTED_PROXIES="10.0.0.1")

    assert send(host, "10.0.0.1", Client_Cert=header) == NO_CERTIFICATE


def test_with_proxyfix_the_peer_that_counts_is_the_proxy_itself(hosts: Build, sqlite_url: str, certificate: bytes):
    host = hosts(sqlite_url, after=behind_one_proxy, WEBHOOK_CLIENT_CERTS="any", WEBHOOK_TRUSTED_PROXIES="10.0.0.1")
    header = rfc9440(certificate)

    assert send(host, "10.0.0.1", X_Forwarded_For="203.0.113.9", Client_Cert=header) == PASSES
    assert send(host, "203.0.113.9", X_Forwarded_For="10.0.0.1", Client_Cert=header) == NO_CERTIFICATE


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SSL_CLIENT_VERIFY": "SUCCESS"}, PASSES),
        ({}, PASSES),
        ({"SSL_CLIENT_VERIFY": "FAILED:certificate has expired"}, NO_CERTIFICATE),
        ({"SSL_CLIENT_VERIFY": "NONE"}, NO_CERTIFICATE),
        ({"SSL_CLIENT_CERT": "garbage"}, NO_CERTIFICATE),
    ],
)
def test_the_environ_of_the_server_is_believed_if_it_verified(
    hosts: Build, sqlite_url: str, certificate: bytes, environ: dict[str, str], expected: tuple[int, str]
):
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS="dns:creator.example")
    task_id = host.add_task()
    base = {"SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(certificate), **environ}

    answer = host.app.test_client().post(host.path(task_id), json=completed(task_id), environ_base=base)

    assert answer.json is not None
    assert (answer.status_code, answer.json.get("outcome") or answer.json["error"]["code"]) == expected


def test_a_client_cannot_pose_as_the_servers_environ(hosts: Build, sqlite_url: str, certificate: bytes):
    host = hosts(sqlite_url, WEBHOOK_CLIENT_CERTS="any")

    assert send(host, SSL_Client_Cert=ssl.DER_cert_to_PEM_cert(certificate).replace("\n", " ")) == NO_CERTIFICATE


def test_the_extras_that_these_tests_need_are_there():
    assert importlib.util.find_spec("cryptography") is not None
