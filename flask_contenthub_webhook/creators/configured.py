"""Create the configured creator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..config.settings import Settings
from .protocol import Creator

__all__ = ["configured_creator"]


def configured_creator(settings: Settings, clock: Callable[[], datetime]) -> Creator | None:
    """Return an ``HttpCreator`` for CREATOR_API_BASE_URL, else a ``CliCreator`` for CREATOR_CLI_PATH, else None."""
    if settings.creator_base_url is not None:
        from .http import HttpCreator

        return HttpCreator(
            settings.creator_base_url,
            api_key=settings.creator_api_key,
            timeout=settings.creator_timeout,
            mode=settings.creator_mode,
            listing=settings.creator_list,
            concurrency=settings.poll_concurrency,
            clock=clock,
        )
    if settings.creator_cli_path is not None:
        from .cli import CliCreator

        return CliCreator(settings.creator_cli_path, timeout=settings.creator_timeout)
    return None
