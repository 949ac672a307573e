"""Several creators of one application, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.signatures import SCHEMES
from ..errors import ConfigurationError
from .protocol import Creator

__all__ = ["ALONE", "Creators", "can_read_callbacks"]

ALONE = "creator"
"""The name of an application's only creator in its URLs; its tasks have none."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,15}")
_METHODS = ("submit", "status", "statuses", "result", "cancel")


class Creators(Mapping[str, Creator]):
    """Several services, each under the name by which :meth:`.ContentHubWebhook.submit` finds it.

    ::

        webhook.init_app(app, db, creator=Creators(hub=HttpCreator(...), replicate=ReplicatePredictions(...)))
        webhook.submit(creator="replicate", ...)

    A name has at most 16 lower-case letters, digits, dashes and underscores. It stands in callback URLs and in the
    history. Tasks without a creator's name, such as those from the time before there were several, are the first one's.

    Args:
        **creators: the creators by their names.

    Raises:
        ConfigurationError: there is none, a name cannot be used, or a value is not a creator.
    """

    def __init__(self, **creators: Creator) -> None:
        if not creators:
            raise ConfigurationError("Creators() needs at least one creator: Creators(hub=HttpCreator(...)).")
        for name, creator in creators.items():
            if not _NAME.fullmatch(name) or name in SCHEMES:
                raise ConfigurationError(
                    f"{name!r} cannot be the name of a creator: at most 16 lower-case letters, digits, dashes and "
                    f"underscores, and none of {', '.join(SCHEMES)}."
                )
            if lacks := [method for method in _METHODS if not callable(getattr(creator, method, None))]:
                raise ConfigurationError(f"The creator {name} ({type(creator).__name__}) lacks {', '.join(lacks)}.")
        self._creators = dict(creators)

    def __getitem__(self, name: str) -> Creator:
        """Return the creator of a name.

        Raises:
            KeyError: there is none.
        """
        return self._creators[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names, in the order in which they were given."""
        return iter(self._creators)

    def __len__(self) -> int:
        """Return the number of creators."""
        return len(self._creators)


def can_read_callbacks(creator: Any) -> bool:
    """Return True if the service of a creator calls back in its own words."""
    return callable(getattr(creator, "read_callback", None))
