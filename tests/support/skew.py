"""Servers whose clocks differ, over one database; time passes by moving the rows back, so its clock stays real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from flask_contenthub_webhook.models.columns import UTCDateTime
from tests.support.host import Host

SKEWS = {
    "an hour behind": timedelta(hours=-1),
    "ten minutes behind": timedelta(minutes=-10),
    "two minutes behind": timedelta(minutes=-2),
    "right": timedelta(),
    "two minutes ahead": timedelta(minutes=2),
    "ten minutes ahead": timedelta(minutes=10),
    "an hour ahead": timedelta(hours=1),
}


def set_clock(host: Host, skew: timedelta) -> Host:
    """Let the clock of a server differ from the database's, which is real, from now on."""
    clock = host.state.store.clock
    clock.replacement = None
    clock.wall = lambda: datetime.now(UTC) + skew
    return host


def pass_time(host: Host, **parts: float) -> None:
    """Let everything in the database be older, and due sooner."""
    with host.engine.begin() as connection:
        for table in host.db.metadata.sorted_tables:
            times = [column for column in table.columns if isinstance(column.type, UTCDateTime)]
            for row in connection.execute(sa.select(table)).mappings() if times else ():
                earlier = {at.key: row[at.key] - timedelta(**parts) for at in times if row[at.key] is not None}
                is_this = [key == row[key.key] for key in table.primary_key]
                connection.execute(sa.update(table).where(*is_this).values(**earlier))
