"""The parts of the proof by name; each is a module with a function ``prove``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Final, Protocol

from .results import PartResult

__all__ = ["DATABASES", "PARTS", "Prove", "load"]

DATABASES: Final = ("sqlite", "postgresql", "mariadb")
_ORDER = ("model", "interleavings", "crash_points", "mutants")
PARTS: Final = tuple(name for name in _ORDER if find_spec(f"{__package__}.{name}") is not None)


class Prove(Protocol):
    """The function of a part."""

    def __call__(self, *, whole: bool, databases: Sequence[str], say: Callable[[str], None]) -> PartResult:
        """Enumerate the cases of the part.

        Args:
            whole: all of them; else a slice of less than a minute.
            databases: the kinds of database to run on, of those in ``DATABASES``, where the part uses several.
            say: prints a line on how far it is.
        """


def load(name: str) -> Prove:
    """Return the function of a part."""
    prove: Prove = import_module(f"{__package__}.{name}").prove
    return prove
