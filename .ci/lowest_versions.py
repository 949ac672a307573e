"""Print the lowest version of everything that a host may install, as a constraints file for pip.

They follow from the lower bounds in `pyproject.toml`: of the package itself and of its extras, but not of those that
only the checkout's own commands want. ``python lowest_versions.py >lowest.txt``
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

NOT_FOR_HOSTS = {"demo", "test", "bench", "docs", "release", "dev"}
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?P<bounds>[^;]*)")
"""`psycopg[binary]>=3.2.1`; a constraint names no extras."""
LOWER_BOUND = re.compile(r">=\s*([^,\s]+)")


def main() -> None:
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra, wanted in project["optional-dependencies"].items():
        if extra not in NOT_FOR_HOSTS:
            requirements += wanted
    for requirement in requirements:
        found = REQUIREMENT.match(requirement)
        if found is None or (bound := LOWER_BOUND.search(found["bounds"])) is None:
            raise SystemExit(f"{requirement!r} has no lower bound.")
        print(f"{found['name']}=={bound[1]}")


if __name__ == "__main__":
    main()
