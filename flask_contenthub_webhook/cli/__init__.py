"""The ``flask webhook`` group, for operators and scripts.

Progress bars need the extra ``cli`` (rich); ``--json`` prints one document on stdout, and logs go to stderr.
"""

from __future__ import annotations

from .group import webhook_group

__all__ = ["webhook_group"]
