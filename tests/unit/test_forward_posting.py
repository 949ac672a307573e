"""One request to a stranger's URL, over real sockets: whatever is there, it is bounded and goes nowhere else."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any, Self

import pytest
import trustme

from flask_contenthub_webhook.forwarding.post import Answer, Poster
from tests.support.receiver import Receiver, Reply

LOOPBACK = [ip_network("127.0.0.0/8")]
HEADERS = {"webhook-id": "msg_1"}
TIMEOUT = 0.4
SLACK = 5
"""Seconds for a busy machine; without a limit these receivers would never end."""


class Odd:
    """A server that does with each connection what it is told, and closes it then."""

    def __init__(self, behaviour: Callable[[socket.socket, threading.Event], None]) -> None:
        self._behaviour = behaviour
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client has gone: what most of these tests are about
            self._behaviour(connection, self._stopping)


def drip(head: bytes, drop: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Read the request, send the head, and then a drop every 20 ms for ever."""

    def behave(connection: socket.socket, stopping: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(head)
        while not stopping.wait(0.02):
            connection.sendall(drop)

    return behave


def flood(head: bytes, drop: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """The same, as fast as the other end reads."""

    def behave(connection: socket.socket, stopping: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(head)
        while not stopping.is_set():
            connection.sendall(drop * 500)

    return behave


def post(url: str, *, body: bytes = b"{}", **options: Any) -> Answer:
    return Poster(**{"timeout": TIMEOUT, "allowed": LOOPBACK, **options}).post(url, body, HEADERS)


def why(answer: Answer) -> str:
    assert answer.error is not None
    return answer.error


def took(answer: Answer) -> float:
    return answer.duration_ms / 1000


# --- what is sent --------------------------------------------------------------------------------------------


def test_the_request_is_what_it_should_be():
    with Receiver() as receiver:
        answer = post(receiver.url("/a%20b?c=d&e=%2F"), body='{"键":1}'.encode())

        (request,) = receiver.requests
        assert request.head[0] == "POST /a%20b?c=d&e=%2F HTTP/1.1"
        assert request.body == '{"键":1}'.encode()
        assert request.header("host") == receiver.netloc
        assert request.header("content-type") == "application/json"
        assert request.header("content-length") == "9"
        assert request.header("webhook-id") == "msg_1"
        assert request.header("user-agent").startswith("flask-contenthub-webhook/")
        assert request.header("authorization") is None
        assert request.header("cookie") is None
    assert (answer.status, answer.error, answer.address, answer.final) == (200, None, "127.0.0.1", False)


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with Receiver() as receiver:
        assert post(receiver.url()).status == 200


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(status):
    with Receiver(Reply(raw=f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())) as receiver:
        answer = post(receiver.url())
    assert (answer.status, answer.error) == (status, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_the_answer_says_where_it_led(status):
    with Receiver() as elsewhere, Receiver(Reply(status, headers={"Location": elsewhere.url()})) as receiver:
        answer = post(receiver.url())
        assert elsewhere.requests == []
        assert (
            answer.error == f"The receiver answered {status}: a redirect to {elsewhere.url()}, which is not followed."
        )
    assert not answer.final


def test_what_a_failure_says_is_kept_in_short_and_printable():
    words = "no\x00 \x1b[31mroom\n" + "x" * 10_000
    raw = f"HTTP/1.1 500 X\r\nContent-Length: {len(words)}\r\n\r\n{words}".encode()
    with Receiver(Reply(raw=raw)) as receiver:
        answer = post(receiver.url())
    assert why(answer).startswith("The receiver answered 500: no   [31mroom xxx")
    assert why(answer).isprintable()
    assert len(why(answer)) < 600


def test_gone_is_final_and_retry_after_is_passed_on():
    with Receiver(Reply(410, headers={"Retry-After": "7"})) as receiver:
        answer = post(receiver.url())
    assert (answer.status, answer.final, answer.retry_after) == (410, True, "7")


# --- receivers that do not end -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (lambda connection, stopping: stopping.wait(), "no answer within 0.4 s"),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X"), "no answer within 0.4 s"),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n"), "no answer within 0.4 s"),
        (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer within 0.4 s"),
        (flood(b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n"), "the answer is too long"),
        (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "the answer is too long"),
        (flood(b"HTTP/1.1 200 OK\r\nX-Long: ", b"y" * 100), "the answer is too long"),
        (lambda connection, stopping: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), "The request failed"),
        (lambda connection, stopping: None, "The request failed"),
    ],
    ids=[
        *("silent", "dripping head", "endless headers", "endless 1xx", "header flood", "1xx flood", "one long header"),
        *("no http", "hangs up"),
    ],
)
def test_a_receiver_without_an_end_is_cut_off_and_the_answer_says_why(behaviour, words):
    with Odd(behaviour) as server:
        answer = post(server.url)
    assert words in why(answer)
    assert answer.status is None
    assert answer.address == "127.0.0.1"
    assert took(answer) < TIMEOUT + SLACK


@pytest.mark.parametrize("send", [drip, flood])
@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 %d X\r\nContent-Length: 999999999\r\n\r\n", b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("status", [200, 500])
def test_a_body_that_never_ends_is_cut_off_and_the_status_counts(send, head, status):
    with Odd(send(head % status, b"1\r\nx\r\n")) as server:
        answer = post(server.url)
    assert answer.status == status
    assert (answer.error is None) == (status == 200)
    assert took(answer) < TIMEOUT + SLACK


def test_a_receiver_that_does_not_read_is_cut_off():
    with Odd(lambda connection, stopping: stopping.wait()) as server:
        answer = post(server.url, body=b"x" * 30_000_000)
    assert "no answer within" in why(answer)
    assert took(answer) < TIMEOUT + SLACK


def test_an_early_refusal_of_a_large_body_is_still_read():
    def refuse(connection: socket.socket, stopping: threading.Event) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        stopping.wait(0.2)

    with Odd(refuse) as server:
        answer = post(server.url, body=b"x" * 5_000_000, timeout=5)
    assert answer.status in {413, None}  # the kernel may have thrown it away with the connection
    assert answer.error is not None


def test_a_resolver_that_hangs_is_not_waited_for():
    ended = threading.Event()
    answer = post("http://slow.example/", resolver=lambda host, port: [str(ended.wait(30))])
    ended.set()
    assert "no answer within" in why(answer)
    assert answer.address is None
    assert took(answer) < TIMEOUT + SLACK


# --- addresses -----------------------------------------------------------------------------------------------


def test_a_name_that_leads_to_loopback_is_refused_and_nothing_is_sent():
    with Receiver() as receiver:
        port = receiver.netloc.split(":")[1]
        answer = post(f"http://localhost:{port}/", allowed=[])
        assert receiver.requests == []
    assert answer.final
    assert answer.address in {"127.0.0.1", "::1"}
    assert "is loopback, and not in WEBHOOK_FORWARD_ALLOWED_NETWORKS" in why(answer)


def test_the_connection_goes_to_the_very_address_that_was_looked_at():
    """A name that answers with a public address first and an internal one afterwards has only one chance."""
    asked: list[tuple[str, int]] = []

    def two_faced(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.99"]

    with Receiver() as receiver:
        port = int(receiver.netloc.split(":")[1])
        answer = post(f"http://two-faced.example:{port}/", allowed=[ip_network("127.0.0.1/32")], resolver=two_faced)
        assert receiver.requests[0].header("host") == f"two-faced.example:{port}"
    assert answer.status == 200
    assert asked == [("two-faced.example", port)]


def test_of_several_addresses_only_the_fit_ones_are_connected_to():
    with Receiver() as receiver:
        port = receiver.netloc.split(":")[1]
        answer = post(
            f"http://mixed.example:{port}/",
            allowed=[ip_network("127.0.0.1/32")],
            resolver=lambda host, port: ["10.0.0.1", "169.254.169.254", "127.0.0.1"],
        )
    assert (answer.status, answer.address) == (200, "127.0.0.1")


def test_an_address_that_does_not_answer_gives_way_to_the_next():
    with Receiver() as receiver:
        port = receiver.netloc.split(":")[1]
        answer = post(f"http://two.example:{port}/", resolver=lambda host, port: ["127.0.0.7", "127.0.0.1"])
    assert (answer.status, answer.address) == (200, "127.0.0.1")


@pytest.mark.parametrize(
    "resolver",
    [
        lambda host, port: [],
        lambda host, port: socket.getaddrinfo("a" * 64 + ".example", port),
    ],
    ids=["no address", "no name"],
)
def test_a_name_without_an_address_is_a_failure_that_may_pass(resolver):
    answer = post("http://nowhere.example/", resolver=resolver)
    assert why(answer).startswith("The request failed")
    assert not answer.final
    assert answer.address is None


def test_an_error_that_nobody_foresaw_is_an_answer_as_well(caplog):
    def broken(host: str, port: int) -> list[str]:
        raise ZeroDivisionError

    assert post("http://odd.example/", resolver=broken).error == "The request failed: ZeroDivisionError."
    assert "an unexpected error" in caplog.text


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority) -> Iterator[Callable[[str], Odd]]:
    """A server with a certificate for a name, which answers with the name that the client asked for."""
    started: list[Odd] = []

    def start(name: str) -> Odd:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        asked: list[str | None] = []
        context.sni_callback = lambda _socket, asked_for, _context: asked.append(asked_for)

        def behave(connection: socket.socket, stopping: threading.Event) -> None:
            with context.wrap_socket(connection, server_side=True) as secured:
                request = b""
                while not request.endswith(b"{}"):
                    request += secured.recv(65536)
                secured.sendall(f"HTTP/1.1 500 X\r\nContent-Length: 99\r\n\r\nasked for {asked[-1]}".encode())

        started.append(Odd(behave).__enter__())
        return started[-1]

    yield start
    for server in started:
        server.__exit__()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(tls, authority):
    server = tls("hub.example")
    options: dict[str, Any] = {"resolver": lambda host, port: ["127.0.0.1"], "timeout": 3}

    fine = post(f"https://hub.example:{server.port}/", ssl_context=trusting(authority), **options)
    other = post(f"https://other.example:{server.port}/", ssl_context=trusting(authority), **options)
    unknown = post(f"https://hub.example:{server.port}/", **options)

    assert fine.error == "The receiver answered 500: asked for hub.example."
    assert "certificate" in why(other).lower()
    assert "certificate" in why(unknown).lower()


def test_a_receiver_that_never_ends_its_handshake_is_cut_off(authority):
    with Odd(lambda connection, stopping: stopping.wait()) as server:
        answer = post(server.url.replace("http:", "https:"), ssl_context=trusting(authority))
    assert "no answer within" in why(answer)
    assert took(answer) < TIMEOUT + SLACK


def test_a_body_that_drips_behind_tls_is_cut_off(tls, authority):
    server = tls("hub.example")  # announces 99 bytes and sends fewer
    started = time.monotonic()
    answer = post(
        f"https://hub.example:{server.port}/",
        ssl_context=trusting(authority),
        resolver=lambda host, port: ["127.0.0.1"],
    )
    assert answer.status == 500
    assert time.monotonic() - started < TIMEOUT + SLACK
