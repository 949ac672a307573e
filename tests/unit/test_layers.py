"""Imports point down: a module uses only what stands below it, typing imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import flask_contenthub_webhook

ROOT = Path(flask_contenthub_webhook.__file__).parent
LAYERS = (
    {"_version", "errors"},
    {"signals"},
    {"core"},
    {"config", "models", "storage"},
    {"creators"},
    {"runtime"},
    {"forwarding"},
    {"engine"},
    {"compat", "tasks", "web"},
    {"operations"},
    {"extension"},
    {"__init__", "cli", "contrib", "migrations", "testing"},
)
"""From the bottom up."""
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
LATE = {"__init__", "extension"}
"""May import from above inside a function: an extra, or the commands, where they are needed."""
PURE = {"flask", "sqlalchemy", "apscheduler", "httpx", "httpcore", "flask_sqlalchemy", "flask_migrate"}
MODULES = sorted(ROOT.rglob("*.py"))


def unit_of(module: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(module: Path, tree: ast.AST, *, late: bool) -> Iterator[list[str]]:
    """Dotted names that a module imports, absolute; with ``late`` those inside functions, too."""
    package = (ROOT.name, *module.relative_to(ROOT).parts[:-1])
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from (alias.name.split(".") for alias in node.names)
            case ast.ImportFrom():
                base = [*package[: len(package) + 1 - node.level]] if node.level else []
                base += (node.module or "").split(".") if node.module else []
                yield from ([*base, alias.name] for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not late:
                continue
            case _:
                yield from imported(module, node, late=late)


def upward(module: Path, source: str) -> list[str]:
    """The imports of a module that do not point down."""
    mine = unit_of(module)
    names = imported(module, ast.parse(source), late=mine not in LATE)
    theirs = {name[1]: ".".join(name) for name in names if name[0] == ROOT.name and len(name) > 1 and name[1] in HEIGHT}
    outer = HEIGHT[mine] == len(LAYERS) - 1  # the outer ring may use itself
    return [name for unit, name in theirs.items() if unit != mine and HEIGHT[unit] >= HEIGHT[mine] + outer]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_imports_point_down(module: Path):
    assert unit_of(module) in HEIGHT, "Give it a place in LAYERS."
    assert upward(module, module.read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/events.py", "from ..storage.rows import Tx"),
        ("storage/store.py", "if TYPE_CHECKING:\n    from ..runtime.state import WebhookState"),
        ("storage/store.py", "def late():\n    from flask_contenthub_webhook.engine.apply import apply_event"),
        ("engine/apply.py", "from .. import extension"),
        ("tasks/submit.py", "from ..web.views import blueprint"),
    ],
)
def test_an_import_upwards_or_sideways_is_found(module: str, line: str):
    assert len(upward(ROOT / module, line)) == 1


def test_the_core_is_pure():
    modules = [module for module in MODULES if unit_of(module) == "core"]
    names = {name[0] for module in modules for name in imported(module, ast.parse(module.read_text()), late=True)}
    assert len(modules) > 10
    assert not names & PURE


def test_few_modules_stand_at_the_top():
    assert len(list(ROOT.glob("*.py"))) <= 7


def test_no_module_is_long():
    long = {str(module.relative_to(ROOT)): len(module.read_text().splitlines()) for module in MODULES}
    frozen = "migrations/revisions"
    assert {name: lines for name, lines in long.items() if lines > 400 and not name.startswith(frozen)} == {}


def modules_in_circles() -> set[str]:
    """Modules that import each other, directly or through others."""
    names = {".".join((ROOT.name, *module.relative_to(ROOT).with_suffix("").parts)): module for module in MODULES}
    graph = {
        name: {
            target
            for parts in imported(module, ast.parse(module.read_text()), late=True)
            for target in (".".join(parts), ".".join(parts[:-1]))
            if target in names and target != name
        }
        for name, module in names.items()
    }
    while ends := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in ends}
    while tops := graph.keys() - {target for targets in graph.values() for target in targets}:
        graph = {name: targets for name, targets in graph.items() if name not in tops}
    return set(graph)


def test_there_is_no_circle():
    assert modules_in_circles() == set()
