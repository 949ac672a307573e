"""Run the proof, all parts or some: ``python -m tests.proof [PART ...] [--slice] [--database NAME] [--write]``."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence

from .parts import DATABASES, PARTS, load
from .results import PartResult, table_of, write_table


def main() -> int:
    """Print what each part says, the table and the stories; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description="Prove the promises by enumeration.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--slice", action="store_true", help="the part of each that the tests run, below a minute")
    parser.add_argument("--database", action="append", choices=DATABASES, help="may be repeated; all by default")
    parser.add_argument("--write", action="store_true", help="write the table into docs/proof.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there are no parts named {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results = []
    for name in arguments.parts or PARTS:
        _say(f"{name}:")
        result = _run(name, whole=not arguments.slice, databases=arguments.database or DATABASES)
        for story in result.stories:
            _say(f"\n{story}\n")
        results.append(result)
    _say("\n" + "\n".join(table_of(results)))
    if arguments.write and not arguments.slice and not arguments.database:  # a part of it is not the whole
        write_table(results)
    return 1 if any(result.stories for result in results) else 0


def _run(name: str, *, whole: bool, databases: Sequence[str]) -> PartResult:
    """Run one part; what it raises is a story, and the others run all the same."""
    began = time.monotonic()
    try:
        return load(name)(whole=whole, databases=databases, say=lambda line: _say(f"  {line}"))
    except Exception:  # noqa: BLE001 - it is told
        story = f"{name} ended with an error:\n{traceback.format_exc()}"
        return PartResult(part=name.replace("_", " "), cases=0, stories=(story,), seconds=time.monotonic() - began)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
