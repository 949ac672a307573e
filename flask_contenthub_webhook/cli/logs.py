"""Log lines of long-running commands: on stderr, one event a line, with its structured fields."""

from __future__ import annotations

import logging
import sys

from ..core.logs import NAMED_FIELDS
from .terminal import escaped

__all__ = ["show_logs"]

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"} | NAMED_FIELDS


def show_logs() -> None:
    """Show this package's log from INFO up, unless the application configures logging itself."""
    logger = logging.getLogger("flask_contenthub_webhook")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithExtras("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class _WithExtras(logging.Formatter):
    """Appends the structured fields of a record that its message does not name."""

    def format(self, record: logging.LogRecord) -> str:
        line, newline, traceback = super().format(record).partition("\n")
        extras = "".join(f" {name}={value}" for name, value in vars(record).items() if name not in _OWN)
        return f"{escaped(line + extras)}{newline}{escaped(traceback, lines=True)}"
