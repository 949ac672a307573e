"""Headers whose names are found in any case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["CaseInsensitive"]


class CaseInsensitive(Mapping[str, str]):
    """Headers by their names, in whatever case these are written or looked up; of two equal names, the first counts."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers: dict[str, tuple[str, str]] = {}
        for name, value in headers.items():
            self._headers.setdefault(name.lower(), (name, value))

    def __getitem__(self, name: str) -> str:
        """Return a header's value.

        Raises:
            KeyError: there is no such header.
        """
        return self._headers[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        """Yield the names as they were written."""
        return (name for name, _ in self._headers.values())

    def __len__(self) -> int:
        """Return the number of headers."""
        return len(self._headers)
