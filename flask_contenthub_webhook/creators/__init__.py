"""Creators: the services that do the jobs. To add one, write a class with the methods of :class:`Creator`."""

from __future__ import annotations

from .cli import CliCreator
from .http import HttpCreator
from .named import Creators
from .protocol import Callback, Creator, Job, RemoteState, Report
from .service_errors import UnknownJob, service_errors

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
