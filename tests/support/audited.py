"""An audit of a database that other processes have used."""

from __future__ import annotations

from typing import Any

from flask_contenthub_webhook.operations.audit import audit

from .host import make_host

__all__ = ["findings_in"]


def findings_in(url: str, **config: Any) -> list[str]:
    """Look at a database of which nothing was purged, and whose tasks the extension made."""
    host = make_host(url, create_tables=False, WEBHOOK_SUBMIT_THREADS=0, **config)
    try:
        return [
            f"{each.promise}: {each.table} {each.id}: {each.message}" for each in audit(host.state, whole_history=True)
        ]
    finally:
        host.close()
