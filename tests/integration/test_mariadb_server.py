"""The MariaDB of the tests: private, killed and started again at will."""

from __future__ import annotations

from sqlalchemy import create_engine, text

from tests.support.mariadb import MariaDBServer


def test_a_killed_server_comes_back_with_every_committed_row(mariadb, mariadb_url):
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (number INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO kept VALUES (1), (2)"))
    engine.dispose()

    with mariadb.outage():
        assert not mariadb.running

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM kept")) == 2
    engine.dispose()


def test_settings_are_the_server_s_own(mariadb):
    with MariaDBServer(settings={"lower-case-table-names": "1", "max-allowed-packet": "1M"}) as other:
        other.start()
        engine = create_engine(other.create_database(charset="latin1"))
        with engine.connect() as connection:
            row = connection.execute(
                text("SELECT @@lower_case_table_names, @@max_allowed_packet, @@character_set_database")
            )
            assert tuple(row.one()) == (1, 1024 * 1024, "latin1")
        engine.dispose()
        assert other.socket != mariadb.socket
