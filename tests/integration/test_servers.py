"""The servers of the tests work: what would be blamed on the product is not their fault."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time

import httpx
import psycopg
import pytest
import trustme
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from tests.support.gunicorn import Gunicorn
from tests.support.postgres import PostgresServer
from tests.support.processes import PROJECT_ROOT, ServerError

TINY_APP = "tests.support.tiny_app:create_app()"


def query(url, statement):
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestDatabases:
    def test_each_kind_takes_a_write_and_gives_it_back(self, database_url):
        query(database_url, "create table notes (body varchar(20))")
        query(database_url, "insert into notes values ('你好 🎉')")

        assert query(database_url, "select body from notes") == "你好 🎉"

    def test_postgresql_is_version_18(self, postgres_url):
        assert int(query(postgres_url, "show server_version_num")) // 10_000 == 18

    def test_two_databases_do_not_see_each_other(self, postgres):
        first, second = postgres.create_database(), postgres.create_database()
        query(first, "create table only_here (id int)")

        assert query(first, "select to_regclass('only_here')::text") == "only_here"
        assert query(second, "select to_regclass('only_here')::text") is None

    def test_a_database_is_dropped_under_a_session_that_is_still_open(self, postgres):
        url = postgres.create_database()
        engine = create_engine(url)
        with engine.connect() as connection:
            connection.execute(text("select 1"))
            postgres.drop_database(url)
            with pytest.raises(DBAPIError):
                connection.execute(text("select 1"))
        engine.dispose()

        with pytest.raises(DBAPIError, match="does not exist"):
            query(url, "select 1")


class TestPostgresOutage:
    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_live_connections_are_cut_and_committed_rows_survive(self, postgres, postgres_url, mode):
        query(postgres_url, "create table notes (body text)")
        query(postgres_url, "insert into notes values ('kept')")
        engine = create_engine(postgres_url)
        connection = engine.connect()
        connection.execute(text("insert into notes values ('never committed')"))

        with postgres.outage(mode):
            assert not postgres.running
            with pytest.raises(DBAPIError):
                connection.execute(text("select 1"))
            connection.invalidate()
            connection.close()
            with pytest.raises(DBAPIError):
                query(postgres_url, "select 1")

        engine.dispose()
        assert query(postgres_url, "select string_agg(body, ',') from notes") == "kept"

    def test_an_application_recovers_without_a_restart(self, postgres, postgres_url, gunicorn):
        server = gunicorn(TINY_APP, env={"DATABASE_URL": postgres_url})
        pids = server.worker_pids()
        assert httpx.get(f"{server.base_url}/database").json() == {"two": 2}

        with postgres.outage():
            started = time.monotonic()
            assert httpx.get(f"{server.base_url}/database").status_code == 503
            assert time.monotonic() - started < 10

        assert httpx.get(f"{server.base_url}/database").json() == {"two": 2}
        assert server.worker_pids() == pids

    def test_close_leaves_no_process_and_no_file(self):
        with PostgresServer() as server:
            with psycopg.connect(f"host={server.directory} user=postgres") as connection:
                backend = connection.info.backend_pid
                connection.execute("select 1")
            postmaster = server.pid

        assert not is_alive(postmaster)
        assert not is_alive(backend)
        assert not server.directory.exists()


class TestGunicorn:
    @pytest.mark.parametrize(("workers", "threads"), [(1, 1), (2, 1), (4, 1), (2, 4)])
    def test_every_worker_is_ready_and_answers_as_itself(self, gunicorn, workers, threads):
        server = gunicorn(TINY_APP, workers=workers, threads=threads)
        pids = server.worker_pids()

        answer = httpx.get(server.base_url).json()

        assert len(pids) == workers
        assert answer["pid"] in pids
        assert server.master_pid not in pids

    def test_the_environment_is_what_the_test_says_and_nothing_else(self, gunicorn, monkeypatch):
        monkeypatch.setenv("WEBHOOK_SECRET_KEY", "the developer's own")
        server = gunicorn(TINY_APP, env={"WEBHOOK_ENABLED": "true"})

        assert httpx.get(server.base_url).json()["configured"] == ["WEBHOOK_ENABLED"]

    def test_a_killed_worker_is_replaced(self, gunicorn):
        server = gunicorn(TINY_APP)
        before = server.worker_pids()

        victim = server.kill_worker()
        server.wait_until_ready()

        assert victim in before
        assert len(server.worker_pids()) == 2
        assert victim not in server.worker_pids()
        assert httpx.get(server.base_url).status_code == 200

    def test_a_restart_keeps_the_port_and_refuses_connections_between(self, gunicorn):
        server = gunicorn(TINY_APP)
        url = server.base_url
        httpx.get(url).raise_for_status()

        server.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        server.start()

        assert server.base_url == url
        assert httpx.get(url).status_code == 200

    def test_an_application_that_cannot_be_loaded_is_reported_with_the_log(self):
        server = Gunicorn("tests.support.tiny_app:broken_app()")
        with pytest.raises(ServerError, match="this factory is broken"), server:
            pass

    def test_stop_kills_what_does_not_end(self):
        with Gunicorn(TINY_APP, workers=1) as server:
            master, (worker,) = server.master_pid, server.worker_pids()
            os.kill(master, signal.SIGSTOP)
            server.stop(timeout=0.2)

            assert not is_alive(master)
            deadline = time.monotonic() + 60
            while is_alive(worker) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not is_alive(worker)

    def test_mutual_tls_accepts_a_known_client_and_refuses_a_stranger(self, gunicorn, tmp_path):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
        server = gunicorn(
            TINY_APP,
            certfile=tmp_path / "server.pem",
            ca_certs=tmp_path / "ca.pem",
            cert_reqs=ssl.CERT_REQUIRED,
        )
        stranger = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        known = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        known.load_cert_chain(tmp_path / "client.pem")

        assert httpx.get(server.base_url, verify=known).json()["scheme"] == "https"
        with pytest.raises(httpx.TransportError):
            httpx.get(server.base_url, verify=stranger)


def test_no_server_outlives_a_run_that_was_killed():
    script = """if True:
        import os, signal
        from tests.support.gunicorn import Gunicorn
        from tests.support.postgres import PostgresServer
        postgres = PostgresServer().start()
        gunicorn = Gunicorn("tests.support.tiny_app:create_app()", workers=1).start()
        print(postgres.directory, postgres.pid, gunicorn.directory, gunicorn.master_pid, gunicorn.port, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    data, postmaster, log, master, port = killed.stdout.split()
    try:
        assert killed.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 60
        while (is_alive(int(postmaster)) or is_alive(int(master))) and time.monotonic() < deadline:
            time.sleep(0.02)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"host={data} user=postgres")
    finally:
        subprocess.run(["rm", "-rf", data, log], check=True)
