"""Step one pair of events through every order: ``python -m tests.proof.mutants.pair postgresql failed cancel``."""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from ..databases import database
from ..interleavings import Arena, cases

__all__ = ["stories_of"]


def stories_of(kind: str, *kinds: str) -> list[str]:
    """Return the stories of the inline cases of these events on a kind of database."""
    chosen = [case for case in cases() if sorted(case.kinds) == sorted(kinds) and not case.inbox]
    with (
        tempfile.TemporaryDirectory(prefix="proof-") as folder,
        database(kind) as url,
        closing(Arena(kind, url, Path(folder))) as arena,
    ):
        for case in chosen:
            arena.go_through(case)
        return list(arena.stories)


if __name__ == "__main__":
    found = stories_of(*sys.argv[1:])
    print(*found, sep="\n\n")  # noqa: T201
    sys.exit(1 if found else 0)
