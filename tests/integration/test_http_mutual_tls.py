"""Client certificates, over real TLS and behind a proxy that ends it."""

from __future__ import annotations

import base64
import hashlib
import ssl

import pytest
import trustme

from tests.support.raw_http import callback, completed, post
from tests.support.web_server import serve

REFUSED = (403, "client_certificate_required")


class Pki:
    """One authority, the server's certificate, and those of clients."""

    def __init__(self, directory):
        self.authority = trustme.CA()
        self.ca_path, self.server_path = directory / "ca.pem", directory / "server.pem"
        self.authority.cert_pem.write_to_path(self.ca_path)
        self.authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.server_path)
        issue = self.authority.issue_cert
        self.clients = {
            "creator": issue("creator.example.org", common_name="Creator One"),
            "other": issue("other.example.org", common_name="Somebody Else"),
            # What looks like the right name, but is not the whole of it, or is in another place.
            "sub": issue("sub.creator.example.org", common_name="Creator One Two"),
            "swapped": issue("other.example.org", common_name="creator.example.org"),
            "foreign": trustme.CA().issue_cert("creator.example.org", common_name="Creator One"),
        }

    def der(self, name):
        return ssl.PEM_cert_to_DER_cert(self.clients[name].cert_chain_pems[0].bytes().decode())

    def fingerprint(self, name):
        return hashlib.sha256(self.der(name)).hexdigest()

    def context(self, name):
        context = ssl.create_default_context(cafile=self.ca_path)
        if name is not None:
            self.clients[name].configure_cert(context)
        return context

    def rfc9440(self, name):
        return f":{base64.b64encode(self.der(name)).decode()}:"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def tls_host(sqlite_url, tmp_path, pki):
    """A function that starts a host which admits these certificates; it is stopped after the test."""
    running = []

    def start(admitted, cert_reqs=ssl.CERT_OPTIONAL):
        tls = {"certfile": pki.server_path, "ca_certs": pki.ca_path, "cert_reqs": cert_reqs}
        server = serve(sqlite_url, tmp_path, workers=1, env={"WEBHOOK_CLIENT_CERTS": admitted}, **tls)
        running.append(server)
        return server.__enter__()

    yield start
    for server in running:
        server.__exit__(None, None, None)


def call(web, pki, name, headers=None):
    """Status and code of a callback by a client with this certificate; and whether it had its effect."""
    task_id = web.database.add_task()
    context = pki.context(name)
    answer = web.send(
        post(callback(task_id), completed(task_id), headers),
        wrap=lambda plain: context.wrap_socket(plain, server_hostname="127.0.0.1"),
    )
    assert web.database.contents(task_id) == {task_id: int(answer.status == 200)}
    return answer.status, answer.code


class TestOverTls:
    @pytest.mark.parametrize("cert_reqs", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
    def test_a_fingerprint_admits_one_certificate(self, tls_host, pki, cert_reqs):
        colons = ":".join(pki.fingerprint("creator")[i : i + 2] for i in range(0, 64, 2)).upper()
        web = tls_host(f"sha256:{colons}", cert_reqs)

        assert call(web, pki, "creator") == (200, None)
        assert call(web, pki, "other") == REFUSED
        assert call(web, pki, "swapped") == REFUSED

    @pytest.mark.parametrize(
        ("admitted", "expected"),
        [
            ("dns:creator.example.org", {"creator": 200, "other": 403, "sub": 403, "swapped": 403}),
            ("dns:CREATOR.example.org", {"creator": 200, "other": 403}),
            ("cn:Creator One", {"creator": 200, "other": 403, "sub": 403, "swapped": 403}),
            ("cn:creator.example.org", {"creator": 403, "swapped": 200}),
            ("any", {"creator": 200, "other": 200, "sub": 200, "swapped": 200}),
            ("cn:nobody, dns:other.example.org", {"creator": 403, "other": 200, "swapped": 200}),
        ],
    )
    def test_names_admit_whole_and_in_their_own_place(self, tls_host, pki, admitted, expected):
        web = tls_host(admitted)

        assert {name: call(web, pki, name)[0] for name in expected} == expected

    def test_without_a_certificate_even_any_is_refused(self, tls_host, pki):
        web = tls_host("any")

        assert call(web, pki, None) == REFUSED
        assert call(web, pki, None, {"Client-Cert": pki.rfc9440("creator")}) == REFUSED  # no proxy is trusted here
        for header in ("SSL-CLIENT-CERT", "X-SSL-Client-Cert", "SSL_CLIENT_CERT", "X-Client-Cert"):
            assert call(web, pki, None, {header: pki.rfc9440("creator")}) == REFUSED

    @pytest.mark.parametrize("cert_reqs", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
    def test_a_certificate_of_another_authority_ends_in_the_handshake(self, tls_host, pki, cert_reqs):
        web = tls_host("any", cert_reqs)

        with pytest.raises((ssl.SSLError, ConnectionError)):
            call(web, pki, "foreign")
        assert call(web, pki, "creator") == (200, None)  # and the server is none the worse for it

    def test_where_certificates_are_required_none_ends_in_the_handshake(self, tls_host, pki):
        web = tls_host("any", ssl.CERT_REQUIRED)

        with pytest.raises((ssl.SSLError, ConnectionError)):
            call(web, pki, None)
        assert call(web, pki, "creator") == (200, None)


@pytest.fixture(scope="module", params=["0", "1"], ids=["no ProxyFix", "ProxyFix"])
def proxied(request, tmp_path_factory, pki):
    directory = tmp_path_factory.mktemp("proxied")
    env = {
        "WEBHOOK_CLIENT_CERTS": f"sha256:{pki.fingerprint('creator')}, dns:creator.example.org",
        "WEBHOOK_TRUSTED_PROXIES": "127.0.0.1/32, 10.0.0.0/8",
        "TEST_HOST_PROXY_FIX": request.param,
    }
    with serve(f"sqlite:///{directory / 'test.db'}", directory, workers=1, env=env) as web:
        yield web


class TestBehindAProxy:
    """Plain HTTP from a hop that ended the TLS connection; 127.0.0.1 is trusted, the other loopback addresses not."""

    @staticmethod
    def call(web, header, *, source="127.0.0.1", name="Client-Cert", **more):
        task_id = web.database.add_task()
        headers = {name: header, "X-Forwarded-For": "203.0.113.7", **more}
        answer = web.send(post(callback(task_id), completed(task_id), headers), source=source)
        assert web.database.contents(task_id) == {task_id: int(answer.status == 200)}
        return answer.status, answer.code

    def test_the_header_of_a_trusted_peer_is_believed(self, proxied, pki):
        assert self.call(proxied, pki.rfc9440("creator")) == (200, None)
        assert self.call(proxied, pki.rfc9440("other")) == REFUSED

    def test_the_header_of_any_other_peer_is_not(self, proxied, pki):
        assert self.call(proxied, pki.rfc9440("creator"), source="127.0.0.2") == REFUSED

    @pytest.mark.parametrize("forwarded", ["127.0.0.1", "10.1.2.3", "127.0.0.1, 127.0.0.1"])
    def test_nor_of_one_who_says_that_he_is_a_trusted_peer(self, proxied, pki, forwarded):
        headers = {"X-Forwarded-For": forwarded, "X-Real-IP": forwarded, "Forwarded": f"for={forwarded}"}

        assert self.call(proxied, pki.rfc9440("creator"), source="127.0.0.2", **headers) == REFUSED

    def test_a_trusted_peer_stays_one_whoever_it_speaks_for(self, proxied, pki):
        assert self.call(proxied, pki.rfc9440("creator"), **{"X-Forwarded-For": "127.0.0.2"}) == (200, None)

    @pytest.mark.parametrize(
        "header",
        ["", ":", "::", "garbage", ":garbage:", ":AAAA:", ":" + "A" * 4000 + ":", b":\xff\xfe:", "%2D%2DBEGIN", "()"],
    )
    def test_what_is_no_certificate_is_refused(self, proxied, header):
        assert self.call(proxied, header) == REFUSED

    def test_a_second_header_beside_the_right_one_is_refused(self, proxied, pki):
        both = f"{pki.rfc9440('other')}\r\nClient-Cert: {pki.rfc9440('creator')}"

        assert self.call(proxied, both) == REFUSED

    def test_a_name_that_wsgi_would_confuse_with_the_right_one_is_refused(self, proxied, pki):
        """A proxy that overwrites Client-Cert lets Client_Cert pass; the server must not turn it into the same."""
        assert self.call(proxied, pki.rfc9440("creator"), name="Client_Cert") == REFUSED

    def test_no_header_is_refused(self, proxied):
        assert self.call(proxied, None) == REFUSED
