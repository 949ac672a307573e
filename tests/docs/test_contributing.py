"""What a newcomer is told to run exists, and the forge runs what a developer runs."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from tests.support.processes import PROJECT_ROOT

GUIDE = (PROJECT_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WORKFLOW = yaml.safe_load((PROJECT_ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/releasing.md", "docs/benchmarks.md"])
def test_every_target_of_make_exists(page: str):
    text = (PROJECT_ROOT / page).read_text(encoding="utf-8")
    named = {word for words in re.findall(r"(?:`| {4})make ([a-z -]+)", text) for word in words.split()}

    assert named
    assert named <= TARGETS


def test_every_path_of_the_guide_exists():
    commands = " ".join(re.findall(r"`([^`\n]+)`", GUIDE)).split()
    paths = [word for word in commands if re.fullmatch(r"[\w.-]+/[\w./-]*", word) and not word.startswith(".venv/")]

    assert len(paths) > 5
    assert [path for path in paths if not (PROJECT_ROOT / path).exists()] == []


def test_the_workflow_runs_what_make_ci_runs_and_may_only_read():
    (job,) = WORKFLOW["jobs"].values()

    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in job


def test_the_workflow_runs_on_the_oldest_supported_python_and_a_newer_one():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (job,) = WORKFLOW["jobs"].values()
    oldest, *newer = job["strategy"]["matrix"]["python"]

    assert project["requires-python"] == f">={oldest}"
    assert newer
    assert {f"Programming Language :: Python :: {version}" for version in [oldest, *newer]} <= set(
        project["classifiers"]
    )
