"""Ready Alembic revisions for hosts, and what copies them into a host's own migrations."""

from __future__ import annotations

from .install import InstalledRevision, MigrationError, install_revisions
from .plan import PlannedRevision, PlannedStep, plan_revisions

__all__ = [
    "InstalledRevision",
    "MigrationError",
    "PlannedRevision",
    "PlannedStep",
    "install_revisions",
    "plan_revisions",
]
