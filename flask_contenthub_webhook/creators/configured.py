"""Create the configured creator, and the one before a move."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..config.settings import Settings
from .protocol import Creator

__all__ = ["configured_creator", "previous_creator"]


def configured_creator(settings: Settings, clock: Callable[[], datetime]) -> Creator | None:
    """Return an ``HttpCreator`` for CREATOR_API_BASE_URL, else a ``CliCreator`` for CREATOR_CLI_PATH, else None."""
    if settings.creator_base_url is not None:
        return _http_creator(settings.creator_base_url, settings, clock)
    if settings.creator_cli_path is not None:
        from .cli import CliCreator

        return CliCreator(settings.creator_cli_path, timeout=settings.creator_timeout)
    return None


def previous_creator(settings: Settings, clock: Callable[[], datetime]) -> Creator | None:
    """Return an ``HttpCreator`` for CREATOR_API_PREVIOUS_URL, the address before a move; else None."""
    url = settings.creator_previous_url
    return None if url is None else _http_creator(url, settings, clock)


def _http_creator(url: str, settings: Settings, clock: Callable[[], datetime]) -> Creator:
    from .http import HttpCreator

    return HttpCreator(
        url,
        api_key=settings.creator_api_key,
        timeout=settings.creator_timeout,
        mode=settings.creator_mode,
        listing=settings.creator_list,
        concurrency=settings.poll_concurrency,
        clock=clock,
    )
