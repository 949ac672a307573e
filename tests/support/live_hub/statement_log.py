"""Each statement of a process and its time, a line of JSON each, into the file that HUB_STATEMENT_LOG names.

A copy of it is the `sitecustomize.py` of the folder in which `flask db upgrade` runs.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa


def log_statements(path: Path) -> None:
    """Begin to log."""
    file = path.open("a", encoding="utf-8", buffering=1)

    def before(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        context.hub_started = time.time()

    def write(statement: str, started: float, error: str | None = None) -> None:
        line = {"statement": statement, "started": started, "ended": time.time(), "error": error}
        file.write(json.dumps(line) + "\n")

    def after(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        write(statement, context.hub_started)

    def failed(error: Any) -> None:
        if error.execution_context is not None and error.statement is not None:
            write(error.statement, error.execution_context.hub_started, str(error.original_exception)[:200])

    sa.event.listen(sa.Engine, "before_cursor_execute", before)
    sa.event.listen(sa.Engine, "after_cursor_execute", after)
    sa.event.listen(sa.Engine, "handle_error", failed)


if __name__ == "sitecustomize" and os.environ.get("HUB_STATEMENT_LOG"):
    log_statements(Path(os.environ["HUB_STATEMENT_LOG"]))
