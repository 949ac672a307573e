"""The same PostgreSQL database through each driver that we name."""

from __future__ import annotations

from sqlalchemy import make_url

POSTGRES_DRIVERS = ("psycopg", "psycopg2", "pg8000")


def through(url: str, driver: str) -> str:
    """The URL of a database of `PostgresServer`, for another driver."""
    made = make_url(url).set(drivername=f"postgresql+{driver}")
    if driver == "pg8000":
        made = made.set(query={"unix_sock": f"{made.query['host']}/.s.PGSQL.5432"})
    return made.render_as_string(hide_password=False)
