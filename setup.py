"""The README as a package index shows it; all else that is built is described in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!\w+:|#)([^()\s]+)\)")
NOTE = "*The pages and pictures that this text names are in the source archive (sdist), in the folder `docs`.*"


def for_an_index(readme: str, source: str | None) -> str:
    """Return the README with links that lead somewhere outside of a checkout.

    Args:
        readme: the text.
        source: where the checkout can be seen, such as ``https://host/owner/name/blob/v1.0.0``; None leaves the words
            of the links, and says where the pages are.
    """

    def replaced(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if source is None:
            return f"*{words}*" if picture else words
        return f"{picture}[{words}]({source}/{target}{'?raw=true' if picture else ''})"

    parts = FENCED.split(readme)
    text = "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)
    title, _, rest = text.partition("\n")
    return text if source is not None else f"{title}\n\n{NOTE}\n{rest}"


def _source() -> str | None:
    """Return the address of this version's files, if the project has one."""
    urls = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    version = re.search(r'"(.+)"', (HERE / "flask_contenthub_webhook" / "_version.py").read_text(encoding="utf-8"))
    return f"{urls['Source'].rstrip('/')}/blob/v{version[1]}" if "Source" in urls and version else None


if __name__ == "__main__":
    setup(
        long_description=for_an_index((HERE / "README.md").read_text(encoding="utf-8"), _source()),
        long_description_content_type="text/markdown",
    )
