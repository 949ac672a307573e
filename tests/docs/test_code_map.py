"""The code map names files, functions and packages that exist, and every package is in its picture."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs.tables import HERE
from tests.support.processes import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "flask_contenthub_webhook"
PAGE = (HERE / "code-map.md").read_text(encoding="utf-8")
PICTURE = (HERE / "code-map.svg").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| \d+ \| `([\w/]+\.py)` \| (.+?) \|", PAGE, re.MULTILINE)


def _names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Return the names of the functions and classes of a module, methods as ``Class.method``."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= _names(node.body, f"{node.name}.")
    return names


def _defined_in(path: Path) -> set[str]:
    return _names(ast.parse(path.read_text(encoding="utf-8")).body)


def test_the_walk_has_at_most_eight_files():
    assert 1 < len({file for file, _ in STEPS}) == len(STEPS) <= 8


@pytest.mark.parametrize(("file", "functions"), STEPS, ids=[file for file, _ in STEPS])
def test_every_step_of_the_walk_exists(file: str, functions: str):
    named = set(re.findall(r"`([\w.]+)`", functions))

    assert named
    assert named <= _defined_in(PACKAGE / file)


def test_a_function_that_does_not_exist_would_be_found():
    defined = _defined_in(PACKAGE / "errors.py")

    assert {"WebhookError", "WebhookError.__init__"} <= defined
    assert "WebhookMistake" not in defined


def test_every_file_and_folder_that_the_page_names_exists():
    named = set(re.findall(r"`(\w+/[\w/]*(?:\.py)?|\w+\.py)`", PAGE))

    assert len(named) > len(STEPS)
    assert {name for name in named if not (PACKAGE / name).exists()} == set()


def test_the_picture_goes_the_same_way_as_the_table():
    assert re.findall(r'class="name file">([^<]+)<', PICTURE) == [file for file, _ in STEPS]


def test_the_picture_has_every_package():
    drawn = {name for row in re.findall(r'class="name package">([^<]+)<', PICTURE) for name in row.split(" · ")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("[!_]*.py")}

    assert folders <= drawn <= folders | modules
