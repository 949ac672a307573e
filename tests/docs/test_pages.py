"""What the pages name is there: links and anchors, commands and their options, configuration keys, public names."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

import flask_contenthub_webhook
from flask_contenthub_webhook import creators, errors, signals, testing
from flask_contenthub_webhook.cli import webhook_group
from flask_contenthub_webhook.config.keys import OPTIONS
from flask_contenthub_webhook.contrib import dashboard, opentelemetry, prometheus
from tests.support.processes import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
PAGES = [*sorted(PROJECT_ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))

PUBLIC = [flask_contenthub_webhook, errors, signals, creators, testing, dashboard, prometheus, opentelemetry]

FENCED = re.compile(r"^(```+).*?^\1$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
CODE_SPAN = re.compile(r"`[^`\n]+`")
COMMAND = re.compile(r"flask (?:--app \S+ )?webhook +([^`|#\n]+)")
KEY = re.compile(r"\b(?:WEBHOOK|CREATOR)_[A-Z][A-Z_]*\b")


# --- links -------------------------------------------------------------------------------------------------------


@every_page
def test_every_link_within_the_project_leads_somewhere(page: Path):
    prose = CODE_SPAN.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))
    targets = [target for target in LINK.findall(prose) if not re.match(r"\w+:", target)]

    assert [target for target in targets if not _exists(page, target)] == []


def _exists(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or anchor in set(_anchors(file)))


def _anchors(page: Path) -> Iterator[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    for heading in re.findall(r"^#{1,3} +(.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_a_link_to_nowhere_would_be_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## What is `here`?\n", encoding="utf-8")

    assert _exists(page, "page.md")
    assert _exists(page, "#what-is-here")
    assert not _exists(page, "#what-is-there")
    assert not _exists(page, "other.md")


# --- commands ----------------------------------------------------------------------------------------------------


@every_page
def test_every_command_and_option_exists(page: Path):
    named = COMMAND.findall(page.read_text(encoding="utf-8"))

    assert [words for words in named if not _is_command(words.split())] == []


def _is_command(words: list[str]) -> bool:
    """Whether the words lead to a command (or a group with a page of its own), with options that it has."""
    command: click.Command = webhook_group
    rest = iter(words)
    for word in rest:
        if not isinstance(command, click.Group) or word.startswith("-"):
            rest = iter([word, *rest])
            break
        if word not in command.commands:
            return False
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return {word for word in rest if re.match(r"--[a-z]", word)} <= known


def test_a_command_or_an_option_that_does_not_exist_would_be_found():
    assert _is_command(["deliveries", "replay", "--verdict", "dead", "--yes"])
    assert not _is_command(["deliveries", "forget"])
    assert not _is_command(["doctor", "--heal"])


COMMAND_LINE = (DOCS / "command-line.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", webhook_group.commands)
def test_the_page_about_the_command_line_names_every_command(name: str):
    first_cells = re.findall(r"^\| (`[a-z].*?) \|", COMMAND_LINE, re.MULTILINE)
    words = {word for cell in first_cells if re.search(rf"`{name}\b", cell) for word in re.findall(r"[a-z-]+", cell)}
    command = webhook_group.commands[name]

    assert {name, *(command.commands if isinstance(command, click.Group) else ())} <= words


@pytest.mark.parametrize(
    "row", re.findall(r"^\| (`--.*?`) \| (.*) \|$", COMMAND_LINE, re.MULTILINE), ids=lambda row: row[0]
)
def test_the_page_about_the_command_line_says_which_lists_have_an_option(row: tuple[str, str]):
    options, meaning = row
    only = re.match(r"(\w+)(?: and (\w+))? only:", meaning)
    lists = {"tasks": webhook_group.commands["tasks"]}
    for name in ("deliveries", "forwards"):
        group = webhook_group.commands[name]
        assert isinstance(group, click.Group)
        lists[name] = group.commands["list"]

    for option in re.findall(r"--[a-z]+", options):
        having = {name for name, command in lists.items() if any(option in each.opts for each in command.params)}
        assert having == (set(only.groups()) - {None} if only else set(lists))


# --- figures -----------------------------------------------------------------------------------------------------

MEASURED = re.compile(r"\b(?:took|takes|waited) (?:more than )?[\d.,]+ (?:ms|s)\b|\d ms on (?:SQLite|PostgreSQL)|p99")
SAYS_HOW = re.compile(r"^ {4}(?:\w+=\S+ )*(?:make|python -m) |`make [a-z-]+", re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == DOCS], ids=lambda page: page.name)
def test_a_page_with_measured_figures_has_the_command_that_measures(page: Path):
    text = page.read_text(encoding="utf-8")

    assert not MEASURED.search(text) or SAYS_HOW.search(text)


def test_a_figure_without_a_command_would_be_found():
    assert MEASURED.search("That took 5 ms on a laptop.")
    assert MEASURED.search("11 ms on SQLite and 24 ms on PostgreSQL")
    assert not MEASURED.search("tried again after 30, 60 and 120 s")
    assert SAYS_HOW.search("    ROWS=1000 python -m pytest tests/scale -rP")
    assert not SAYS_HOW.search("with python -m something")


# --- configuration and names -------------------------------------------------------------------------------------


@every_page
def test_every_configuration_key_exists(page: Path):
    assert set(KEY.findall(page.read_text(encoding="utf-8"))) <= {option.key for option in OPTIONS}


def test_what_is_public_is_said_once_and_names_these_modules():
    bullet = (DOCS / "releasing.md").read_text(encoding="utf-8").partition("- The names in `__all__` of")[2]
    named = re.findall(r"`(flask_contenthub_webhook[\w.]*)`", bullet.partition("\n- ")[0])

    assert named == [module.__name__ for module in PUBLIC]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_the_reference_lists_every_public_name(module: ModuleType):
    assert sorted(set(module.__all__) - {name.rpartition(".")[2] for name in _documented()}) == []


def test_the_reference_describes_each_name_once():
    assert [name for name, times in Counter(_documented()).items() if times > 1] == []


def _documented() -> list[str]:
    """Return the names that have their own entry, and those that an entry takes from a module's ``__all__``."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names: list[str] = re.findall(r"^\.\. .*:: (flask_contenthub_webhook(?:\.[a-z_.]+)?\.\w+)$", pages, re.MULTILINE)
    names = [name for name in names if not re.search(rf"automodule:: {re.escape(name)}$", pages, re.MULTILINE)]
    whole = re.findall(r"automodule:: ([\w.]+)\n +:members:(?:\n +:exclude-members: (.*))?$", pages, re.MULTILINE)
    for module, left_out in whole:
        left = set(importlib.import_module(module).__all__) - set(left_out.split(", "))
        names += [f"{module}.{name}" for name in left]
    return names


@pytest.mark.parametrize("name", sorted(set(_documented())))
def test_no_prose_of_a_docstring_is_printed_as_a_type(name: str):
    """Napoleon takes what stands before a colon for one; ours are all in the annotations."""
    docstring = pytest.importorskip("sphinx.ext.napoleon").GoogleDocstring
    module, _, last = name.rpartition(".")
    named = getattr(importlib.import_module(module), last)
    members = [value for key, value in vars(named).items() if key[0] != "_"] if isinstance(named, type) else []
    texts = [inspect.getdoc(each) or "" for each in (named, *members) if callable(each) or each is named]

    made = [line for text in texts for line in docstring(text).lines()]
    assert [line for line in made if line.startswith((":type", ":rtype"))] == []
    assert ":rtype: Prose" in docstring("Do it.\n\nReturns:\n    Prose: as a type.").lines()


def test_the_pages_about_testing_describe_what_it_names_and_nothing_else():
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("testing.md", "simulator.md"))

    assert sorted(re.findall(r"auto\w+:: (\S+)$", pages, re.MULTILINE)) == sorted(
        f"{testing.__name__}.{name}" for name in testing.__all__
    )


def test_the_page_about_signals_has_every_signal_in_its_table():
    rows = "\n".join(re.findall(r"^\| (`.*?) \|", (DOCS / "signals.md").read_text(encoding="utf-8"), re.MULTILINE))

    assert [name for name in signals.__all__ if f"`{name}`" not in rows] == []


def test_every_page_is_in_the_table_of_contents():
    indexes = [DOCS / "index.md", *DOCS.glob("*/index.md")]
    listed = {entry for index in indexes for entry in _entries(index)}

    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} <= listed


def _entries(index: Path) -> Iterator[Path]:
    """Yield the pages that the tables of contents in an index name."""
    for block in FENCED.finditer(index.read_text(encoding="utf-8")):
        for line in block[0].splitlines():
            yield index.parent / f"{line.rpartition('<')[2].rstrip('>')}.md"
