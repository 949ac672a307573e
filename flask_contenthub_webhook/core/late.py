"""Functions that are imported when they are first used, so that importing the package costs little."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

__all__ = ["Late", "late"]


class Late:
    """A function of a module that is imported with the first call.

    Args:
        module: its absolute name.
        name: of the function.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def load(self) -> Any:
        """Import the module, and return the function."""
        return getattr(import_module(self.module), self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.load()(*args, **kwargs)


def late(module: str, *names: str) -> Iterator[Late]:
    """Yield functions of a module that is imported with the first call of one of them."""
    return (Late(module, name) for name in names)
