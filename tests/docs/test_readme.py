"""The README's quickstart, run as it stands: the same file, the same commands, a real server, a real curl."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from markdown_it import MarkdownIt

from tests.support.processes import PROJECT_ROOT, clean_environment

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART = README.split("## Quickstart")[1].split("## What your handlers see")[0]
IN_CHINESE = PROJECT_ROOT / "docs" / "quickstart.zh.md"


def _block(language: str, containing: str = "") -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", QUICKSTART, re.DOTALL)
    return next(block for block in blocks if containing in block)


def _code(page: str) -> list[str]:
    """Every block of code, fenced or indented, in order."""
    return re.findall(r"^```\w+\n(?:.*\n)*?```$|^    .+$", page, re.MULTILINE)


def _commands(block: str) -> list[str]:
    """The lines behind the prompts, with their continuations."""
    joined = block.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


class Shell:
    """Runs commands as a reader would, in one folder, remembering shell variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}
        self.environment = clean_environment() | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT_ROOT),
        }

    def run(self, command: str) -> str:
        assigned = re.fullmatch(r"(\w+)=\$\((.*)\)", command)
        done = subprocess.run(
            ["bash", "-c", assigned[2] if assigned else command],
            cwd=self.folder,
            env=self.environment | self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if assigned:
            self.variables[assigned[1]] = done.stdout.strip()
        return done.stdout


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _way() -> tuple[list[str], str, list[str]]:
    """The commands of the quickstart: up to the server, the server, and after it."""
    commands = _commands(_block("console", "db init")) + _commands(_block("console", "curl"))
    server_at = next(index for index, command in enumerate(commands) if command.endswith("run &"))
    return commands[:server_at], commands[server_at].removesuffix(" &"), commands[server_at + 1 :]


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder after every command up to the server."""
    return _set_up(tmp_path_factory.mktemp("quickstart"), _block("python"))


def _set_up(folder: Path, app: str) -> Path:
    (folder / "app.py").write_text(app, encoding="utf-8")
    shell = Shell(folder)
    for command in _way()[0]:
        shell.run(command)
    return folder


@pytest.fixture
def quickstart(set_up: Path, tmp_path: Path, port: int) -> Iterator[tuple[Shell, list[str]]]:
    """A copy of the reader's folder with the server running, and the commands that are left."""
    folder = shutil.copytree(set_up, tmp_path / "quickstart")
    (folder / "app.py").write_text(_block("python").replace(":5000", f":{port}"), encoding="utf-8")
    with _served(folder, port) as shell:
        yield shell, _way()[2]


@contextlib.contextmanager
def _served(folder: Path, port: int) -> Iterator[Shell]:
    shell, run = Shell(folder), _way()[1]
    server = subprocess.Popen(
        [*run.split(), "--port", str(port)],
        cwd=folder,
        env=shell.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield shell
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the quickstart's server did not start")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the quickstart uses curl")
def test_the_quickstart_works_as_it_stands(quickstart: tuple[Shell, list[str]], port: int) -> None:
    shell, (new_task, curl) = quickstart
    shell.run(new_task)

    first, second = shell.run(curl), shell.run(curl)

    shown, _, _ = _block("console", "curl").splitlines()[-1].partition("{...}")
    assert first.startswith(shown)
    assert '"outcome":"duplicate"' in second.replace(" ", "")
    articles = httpx.get(f"http://127.0.0.1:{port}/articles", trust_env=False).json()
    assert [article["body"] for article in articles] == ["# Hello"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the quickstart uses curl")
def test_the_quickstart_refuses_a_callback_with_a_wrong_token(quickstart: tuple[Shell, list[str]], port: int) -> None:
    shell, (new_task, curl) = quickstart
    shell.run(new_task)
    shell.variables["URL"] = shell.variables["URL"].rsplit("token=", 1)[0] + "token=wrong"

    answer = shell.run(curl)

    assert '"code":"signature_invalid"' in answer.replace(" ", "")
    assert httpx.get(f"http://127.0.0.1:{port}/articles", trust_env=False).json() == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="the quickstart uses curl")
def test_the_quickstart_refuses_a_callback_without_a_token(quickstart: tuple[Shell, list[str]], port: int) -> None:
    shell, (new_task, curl) = quickstart
    shell.run(new_task)
    shell.variables["URL"] = shell.variables["URL"].split("?")[0]

    answer = shell.run(curl)

    assert '"code":"signature_missing"' in answer.replace(" ", "")
    assert httpx.get(f"http://127.0.0.1:{port}/articles", trust_env=False).json() == []


def test_the_quickstart_keeps_a_long_article_on_a_server(server_url: str, tmp_path: Path, port: int) -> None:
    app = _block("python").replace("sqlite:///quickstart.db", server_url).replace(":5000", f":{port}")
    with _served(_set_up(tmp_path, app), port) as shell:
        shell.run(_way()[2][0])
        article = "茶" * 100_000
        event = {"event": "completed", "taskId": "any", "result": {"content": article}}
        answer = httpx.post(shell.variables["URL"], json=event, trust_env=False)
        assert answer.status_code == 200, answer.text
        articles = httpx.get(f"http://127.0.0.1:{port}/articles", trust_env=False).json()
        assert [one["body"] for one in articles] == [article]


@pytest.mark.parametrize("source", [None, "https://example.org/hub/blob/v1.0.0"])
def test_every_link_of_the_readme_leads_somewhere_on_a_package_index(source: str | None) -> None:
    shown = _on_an_index(_setup_py().for_an_index(README, source))

    assert [target for target in shown if not target.startswith(("http://", "https://"))] == []
    assert len(_on_an_index(README)) > 30
    if source is not None:
        assert [_of_checkout(target, source) for target in shown if target.startswith(source)] == [
            target for target in _on_an_index(README) if not target.startswith("http")
        ]


def _setup_py() -> Any:
    spec = importlib.util.spec_from_file_location("setup_py", PROJECT_ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _on_an_index(text: str) -> list[str]:
    """The targets of the links and pictures of a rendered page."""
    html = MarkdownIt("commonmark").enable("table").render(text)
    return re.findall(r'(?:href|src)="([^"]+)"', html)


def _of_checkout(target: str, source: str) -> str:
    return target.removeprefix(f"{source}/").removesuffix("?raw=true")


def test_the_badges_are_true() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    python, licence = project["project"]["requires-python"], project["project"]["license"]
    assert project["tool"]["mypy"]["strict"] is True
    facts = f"python: {python.removeprefix('>=')}+, types: mypy strict, license: {licence}"

    picture = (PROJECT_ROOT / "docs" / "badges.svg").read_text(encoding="utf-8")
    assert f"![{facts}](docs/badges.svg)" in README
    assert f"<title>{facts}</title>" in picture
    assert facts == ", ".join(
        map(": ".join, re.findall(r"<text[^>]*>([^<]+)</text>\s*<text[^>]*>([^<]+)</text>", picture))
    )


def test_the_first_screen_of_the_readme_shows_flow_code_and_page() -> None:
    first, _, rest = README.partition("make demo")
    places = [first.index(words) for words in ("docs/flow.svg", "```python", "docs/overview.png")]

    assert places == sorted(places)
    assert "## What you get" in rest


def test_the_readme_names_the_two_commands() -> None:
    assert "make demo" in README
    assert "make test" in README


def test_the_chinese_quickstart_has_the_very_code_that_runs_here() -> None:
    in_english = README.split("## Quickstart")[1].split("## Where to go next")[0]

    assert _code(IN_CHINESE.read_text(encoding="utf-8")) == _code(in_english)
    assert len(_code(in_english)) == 7


def test_the_chinese_quickstart_is_found_from_the_front_pages() -> None:
    for page in (README, (PROJECT_ROOT / "docs" / "index.md").read_text(encoding="utf-8")):
        assert "中文快速入门" in page
        assert "quickstart.zh" in page
