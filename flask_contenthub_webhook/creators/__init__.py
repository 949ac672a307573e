"""Creators: the services that do the jobs. To add one, write a class with the methods of :class:`Creator`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .named import Creators
from .protocol import Callback, Creator, Job, RemoteState, Report

if TYPE_CHECKING:
    from .cli import CliCreator
    from .error_translation import UnknownJob, service_errors
    from .http import HttpCreator

__all__ = [
    "Callback",
    "CliCreator",
    "Creator",
    "Creators",
    "HttpCreator",
    "Job",
    "RemoteState",
    "Report",
    "UnknownJob",
    "service_errors",
]

_LATE = {
    "CliCreator": ".cli",
    "HttpCreator": ".http",
    "UnknownJob": ".error_translation",
    "service_errors": ".error_translation",
}
"""The modules of names that are imported when they are used: an HTTP client costs more than all the rest."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
