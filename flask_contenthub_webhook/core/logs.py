"""Loggers whose plain lines name the task, the attempt and the address, which otherwise only a JSON formatter shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["NAMED_FIELDS", "get_logger", "printable"]

_WORDS: Mapping[str, str] = {
    "task_id": "task",
    "creator_task_id": "job",
    "attempt": "attempt",
    "delivery_id": "delivery",
    "forward_id": "forward",
    "event": "event",
    "handler": "handler",
    "source": "by",
    "remote_addr": "from",
}
"""Fields of ``extra`` that a line names, in this order, and the word in front of each."""
NAMED_FIELDS = frozenset(_WORDS)
_LONGEST = 100


def get_logger(name: str) -> logging.Logger:
    """Return a logger that puts known fields of ``extra`` at the end of each message."""
    logger = logging.getLogger(name)
    logger.addFilter(_name_fields)  # once, however often it is called
    return logger


def printable(text: str) -> str:
    """Return a text in which nothing can forge a line of the log; escape what is not printable."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _name_fields(record: logging.LogRecord) -> bool:
    fields: Mapping[str, Any] = vars(record)
    named = [
        f"{word} {printable(str(fields[key]))[:_LONGEST]}"
        for key, word in _WORDS.items()
        if fields.get(key) is not None
    ]
    if named and isinstance(record.args, tuple):
        template = str(record.msg) if record.args else str(record.msg).replace("%", "%%")
        record.msg, record.args = f"{template} [%s]", (*record.args, ", ".join(named))
    return True
