"""Methods of the extension object, made of functions that take the state of an application."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from ..core.late import Late
from .state import WebhookState, get_state

__all__ = ["of_current_app"]

P = ParamSpec("P")
T = TypeVar("T")


def of_current_app(function: Callable[Concatenate[WebhookState, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Make a method of a function that takes the state of the current application in the place of ``self``."""
    if isinstance(function, Late):
        return cast("Callable[Concatenate[Any, P], T]", _LateMethod(function))

    @wraps(function)
    def method(_: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(get_state(), *args, **kwargs)

    signature = inspect.signature(function)
    _, *others = signature.parameters.values()
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    setattr(method, "__signature__", signature.replace(parameters=[this, *others]))  # noqa: B010 - for help() and the docs
    del method.__annotations__["state"]
    return method


class _LateMethod:
    """A descriptor that becomes the method, with its signature and its docstring, when it is first looked at."""

    def __init__(self, function: Late) -> None:
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        method: Any = of_current_app(self._function.load())
        setattr(self._owner, self._name, method)
        return method.__get__(instance, owner)  # not by its name, under which a subclass may have another one
