"""Check the arguments of ``submit``: one that cannot be kept, or cannot be meant, is a ValueError that names it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..core.strict_json import check_value
from ..errors import InvalidJSON
from ..models.task import GenerationTaskMixin

if TYPE_CHECKING:
    from ..storage.rows import ModelTable

__all__ = [
    "MAX_RETRIES",
    "check_flag",
    "check_host_fields",
    "check_number",
    "check_storable",
    "check_texts",
    "text_list",
]

MAX_RETRIES = 1000
_LONGEST_SHOWN = 80
_BITS = ((sa.SmallInteger, 15), (sa.BigInteger, 63), (sa.Integer, 31))
"""Of integer columns; the plain one last, since the others are of its kind."""


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = True, words: str = "") -> None:
    """Refuse what is not a number within bounds; True is not one."""
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number of seconds"
        raise ValueError(f"{name} is {_shown(value)}; it must be {words or f'{kind}, from {low:,} to {high:,}'}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)}; it must be True or False.")


def check_texts(tasks: ModelTable, **values: Any) -> None:
    """Refuse what is neither text nor None, and text that is longer than its column."""
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is {_shown(value)}; it must be text.")
        most = getattr(tasks.columns[name].type, "length", None)
        if value is not None and most is not None and len(value) > most:
            raise ValueError(f"{name} has {len(value)} characters; at most {most} are kept.")


def text_list(name: str, value: Any) -> list[str]:
    """Return several texts as a list; one text alone is not several."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Collection):
        raise ValueError(f"{name} is {_shown(value)}; it must be a list of texts.")
    texts = list(value)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} has {_shown(text)} in it; it must be a list of texts.")
    return texts


def check_host_fields(tasks: ModelTable, fields: Any) -> dict[str, Any]:
    """Return the columns of the host; refuse ours, and numbers that their columns cannot hold."""
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise ValueError(f"task_fields is {_shown(fields)}; it must be a mapping of columns to values.")
    for name, value in fields.items():
        if name in GenerationTaskMixin.__annotations__:
            raise ValueError(f"task_fields has {name}, which belongs to the extension.")
        column = tasks.columns.get(name)
        if column is None or not isinstance(value, int) or isinstance(value, bool):
            continue
        bits = next((bits for kind, bits in _BITS if isinstance(column.type, kind)), None)
        if bits is not None and not -(2**bits) <= value < 2**bits:
            raise ValueError(f"task_fields[{name!r}] is {_shown(value)}; its column has {bits + 1} bits.")
    return dict(fields)


def check_storable(**values: Any) -> None:
    """Refuse text and JSON that some database would not take."""
    for name, value in values.items():
        try:
            check_value(value, name)
            if name != "task_fields":  # which may be of any type, and a column of numbers may take a NaN
                json.dumps(value, allow_nan=False, default=str)
        except InvalidJSON as error:
            raise ValueError(f"{name} cannot be kept. {error.message}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{name} cannot be kept as JSON: {error}.") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return f"a number of {value.bit_length():,} bits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
