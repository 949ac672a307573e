"""The kinds of databases on which tests run: every one that the package supports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIXTURES = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mariadb": "mariadb_url"}
"""The fixture that gives an empty database of each kind to one test."""

KINDS = tuple(FIXTURES)
SERVERS = KINDS[1:]

VARIANTS: Mapping[str, Mapping[str, str]] = {
    "mariadb with snapshots": {"innodb-snapshot-isolation": "ON"},
    "mariadb at read committed": {"transaction-isolation": "READ-COMMITTED"},
}
"""MariaDB as some installations set it up. ``make chaos`` plays the races, kills and outages on these as well."""

_VARIANTS = tuple(VARIANTS) if os.environ.get("CHAOS_VARIANTS") else ()
CHAOS_KINDS = (*KINDS, *_VARIANTS)
CHAOS_SERVERS = (*SERVERS, *_VARIANTS)
