"""The ``flask webhook`` group: what operators and scripts ask the extension at a terminal.

Tables and progress bars are for people and need the extra ``cli`` (rich); ``--json`` prints one JSON document on
stdout, and whatever is logged goes to stderr. Exit codes: 0 for done and well, 1 for a problem that was found or for
what failed, 2 for wrong usage.
"""

from __future__ import annotations

from .group import webhook_group

__all__ = ["webhook_group"]
