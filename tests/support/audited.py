"""An audit of a database that other processes have used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask_contenthub_webhook.operations.audit import audit

from .host import make_host
from .web_server import WebServer, serve

__all__ = ["audited", "findings_in", "serve_and_audit"]


def findings_in(url: str, **config: Any) -> list[str]:
    """Look at a database of which nothing was purged, and whose tasks the extension made."""
    host = make_host(url, create_tables=False, WEBHOOK_SUBMIT_THREADS=0, **config)
    try:
        return [
            f"{each.promise}: {each.table} {each.id}: {each.message}" for each in audit(host.state, whole_history=True)
        ]
    finally:
        host.close()


@contextmanager
def audited(url: str) -> Iterator[None]:
    """Find nothing in a database when the block has ended well; most of what is sent there has no signature."""
    yield
    assert findings_in(url, WEBHOOK_REQUIRE_SIGNATURE=False) == []


@contextmanager
def serve_and_audit(url: str, directory: Path, **options: Any) -> Iterator[WebServer]:
    """Serve as :func:`.web_server.serve`, and audit the database afterwards."""
    with audited(url), serve(url, directory, **options) as web:
        yield web
