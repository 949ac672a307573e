"""The same database of a server through each driver that we name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

POSTGRES_DRIVERS = ("psycopg", "psycopg2", "pg8000")


def through(url: str, driver: str) -> str:
    """The URL of a database of `PostgresServer`, for another driver."""
    made = make_url(url).set(drivername=f"postgresql+{driver}")
    if driver == "pg8000":
        made = made.set(query={"unix_sock": f"{made.query['host']}/.s.PGSQL.5432"})
    return made.render_as_string(hide_password=False)


MARIADB_DRIVERS = ("pymysql", "mysqldb")
MYSQL_CONNECTOR = "mysqlconnector"
"""Oracle's driver; of its collations MariaDB knows only the older ones."""
_OF_DEBIAN = Path("/usr/lib/python3/dist-packages/MySQLdb")
"""mysqlclient has no wheel for Linux: Debian's is for Debian's version of Python."""


def through_mysql(url: str, driver: str) -> str:
    """The URL of a database of `MariaDBServer`, for another driver; the test is skipped where that is missing."""
    if driver == "mysqldb" and not _find_mysqlclient():
        pytest.skip("no mysqlclient for this Python: apt-get install python3-mysqldb")
    made = make_url(url).set(drivername=f"mysql+{driver}")
    if driver != "pymysql":
        made = made.difference_update_query(["ssl_disabled"])
    if driver == MYSQL_CONNECTOR:
        pytest.importorskip("mysql.connector", reason="no mysql-connector: pip install -e '.[mysqlconnector]'")
        made = made.update_query_dict({"charset": "utf8mb4", "collation": "utf8mb4_general_ci"})
    return made.render_as_string(hide_password=False)


def _find_mysqlclient() -> bool:
    """Import mysqlclient, alone out of Debian's folder of packages if it is not installed for this Python."""
    if importlib.util.find_spec("MySQLdb") is None:
        if not list(_OF_DEBIAN.glob(f"_mysql.*-{sys.version_info.major}{sys.version_info.minor}-*.so")):
            return False
        spec = importlib.util.spec_from_file_location(
            "MySQLdb", _OF_DEBIAN / "__init__.py", submodule_search_locations=[str(_OF_DEBIAN)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules["MySQLdb"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["MySQLdb"])
    return True
