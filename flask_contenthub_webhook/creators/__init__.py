"""Creators: the services that do the jobs. To add one, write a class with the methods of :class:`Creator`."""

from __future__ import annotations

from .cli import CliCreator
from .http import HttpCreator
from .protocol import Creator, Job, RemoteState, Report

__all__ = ["CliCreator", "Creator", "HttpCreator", "Job", "RemoteState", "Report"]
