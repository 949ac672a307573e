"""Run searches of the model by name: ``python -m tests.proof.model "a purge"``; without a name, list them."""

from __future__ import annotations

import sys

from .search import search
from .settings import SETTINGS

if __name__ == "__main__":
    if not sys.argv[1:]:
        print("\n".join(SETTINGS))  # noqa: T201
    for name in sys.argv[1:]:
        found = search(SETTINGS[name], say=print)
        print(f"{name}: {found.states:,} states, depth {found.depth}", *found.stories, sep="\n", flush=True)  # noqa: T201
        if found.stories:
            sys.exit(1)
