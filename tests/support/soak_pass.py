"""One pass of reconciliation in a process of its own, so that its memory is its own: prints what it took, as JSON.

DATABASE_URL=... CREATOR_API_BASE_URL=... python -m tests.support.soak_pass
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flask_contenthub_webhook.runtime.state import get_state
from flask_contenthub_webhook.tasks.reconcile import reconcile
from tests.support import web_host


def main() -> None:
    """Run the pass."""
    app = web_host.create_app()
    claims: list[str] = []

    def on_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "next_poll_at <=" in statement:
            claims.append(statement)

    with app.app_context():
        sa.event.listen(web_host.db.engine, "before_cursor_execute", on_statement)
    before = _memory("VmRSS")
    report = reconcile(get_state(app))
    grown = _memory("VmHWM") - before
    figures = {"report": dataclasses.asdict(report), "claims": len(claims), "before": before, "grown": grown}
    print(json.dumps(figures))  # noqa: T201 - for whoever started it


def _memory(name: str) -> int:
    """Bytes: ``VmRSS`` is what is in memory now, ``VmHWM`` the most that ever was."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split(maxsplit=1)[0]) * 1024


if __name__ == "__main__":
    main()
