"""The creators of one application with their own settings, found by the name that a task or a URL has."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..config.settings import Settings
from ..errors import ConfigurationError
from .named import ALONE, Creators, can_read_callbacks
from .protocol import Creator

__all__ = ["Registered", "Registry"]

_TIMES = ("poll_interval", "poll_grace", "poll_max_interval")
_YEAR = 366 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One creator of an application.

    Args:
        name: in URLs and in the history.
        column: in the row of its tasks; None for an application's only creator.
        creator: the object.
        settings: the configuration as it holds for its tasks.
        reads: True if its service calls back in its own words.
    """

    name: str
    column: str | None
    creator: Creator = field(repr=False)
    settings: Settings = field(repr=False)
    reads: bool


class Registry:
    """The creators of one application.

    Args:
        source: what the host passed to ``init_app``, or the configured creator.
        settings: the application's configuration.

    Raises:
        ConfigurationError: an attribute of a creator cannot be used; names it.
    """

    def __init__(self, source: Creator | Creators | None, settings: Settings) -> None:
        self.source, self.settings = source, settings
        named: Mapping[str, Creator] = source if isinstance(source, Creators) else {}
        if source is not None and not isinstance(source, Creators):
            named = {ALONE: source}
        self.is_lone = not isinstance(source, Creators)
        self.entries = tuple(
            Registered(
                name=name,
                column=None if self.is_lone else name,
                creator=creator,
                settings=_settings_for(name, creator, settings),
                reads=can_read_callbacks(creator),
            )
            for name, creator in named.items()
        )
        self.first = self.entries[0] if self.entries else None
        self.default_settings = settings if self.first is None else self.first.settings
        """For tasks whose creator is not known, or is the first one."""
        every = [entry.settings for entry in self.entries] or [settings]
        required = [each.required_result_fields for each in every]
        self.common_fields = tuple(name for name in required[0] if all(name in fields for fields in required))
        """The fields that every creator requires of a result: all that is certain before its task is known."""
        self.fields_differ = any(set(fields) != set(self.common_fields) for fields in required)
        """Only its task tells which fields a result must have."""
        self.poll_lookahead = min(each.poll_lookahead for each in every)
        self.pacing = dataclasses.replace(settings, poll_interval=min(each.poll_interval for each in every))
        """The configuration with the shortest interval of all, by which the poller runs."""
        self.longest_poll = max(max(*each.poll_intervals, each.poll_grace) for each in every)
        self.has_readers = any(entry.reads for entry in self.entries)
        self.has_names = self.has_readers or not self.is_lone
        """Creators are named in callback URLs."""
        self._by_name = {entry.name: entry for entry in self.entries}

    def of(self, name: str | None) -> Registered | None:
        """Return the creator that a task is for, by its ``creator_name``; None if it is no longer configured."""
        return self.first if name is None else None if self.is_lone else self._by_name.get(name)

    def sender(self, name: str) -> Registered | None:
        """Return the creator that a URL names, also by the name that it had as the only one; None for any other."""
        return self._by_name.get(name) or (self.first if name == ALONE else None)

    def columns_of(self, entry: Registered) -> tuple[str, ...]:
        """Return the names that a creator has in the rows of its tasks; empty text stands for none."""
        own = (entry.column or "",)
        return (*own, "") if entry is self.first and entry.column is not None else own

    def url_name(self, entry: Registered | None) -> str | None:
        """Return the name that a creator has in the URLs of its tasks; None if it needs none there."""
        return entry.name if entry is not None and (entry.reads or entry.column is not None) else None

    def reader_of(self, task: Mapping[str, Any]) -> Registered | None:
        """Return the creator of a task if its service reports in its own words, and so is the only one to believe."""
        entry = self.of(task["creator_name"])
        return entry if entry is not None and entry.reads else None


def _settings_for(name: str, creator: Creator, settings: Settings) -> Settings:
    """Return the configuration with what the attributes of a creator put in its place."""
    own: dict[str, Any] = {}
    for key in _TIMES:
        seconds = getattr(creator, key, None)
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _YEAR:
            raise ConfigurationError(f"{key} of the creator {name} must be a number of seconds, from 0 to a year.")
        own[key] = timedelta(seconds=seconds)
    fields = getattr(creator, "required_result_fields", None)
    if fields is not None:
        if isinstance(fields, str) or not isinstance(fields, Collection) or not all(map(_is_field, fields)):
            raise ConfigurationError(f"required_result_fields of the creator {name} must be a list of names.")
        own["required_result_fields"] = tuple(fields)
    callbacks = getattr(creator, "callbacks", True)
    if not isinstance(callbacks, bool):
        raise ConfigurationError(f"callbacks of the creator {name} must be True or False.")
    if not callbacks:
        own["enabled"] = False
    return dataclasses.replace(settings, **own) if own else settings


def _is_field(name: object) -> bool:
    return isinstance(name, str) and bool(name)
