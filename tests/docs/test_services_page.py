"""The page of services says how many lines each takes, and its examples are as short as promised."""

from __future__ import annotations

import re

import pytest

from docs.tables import HERE
from tests.support.glue import lines_of_code
from tests.support.processes import PROJECT_ROOT

PAGE = (HERE / "services.md").read_text(encoding="utf-8")
CONTRIB = PROJECT_ROOT / "flask_contenthub_webhook" / "contrib"
MODULES = {
    "OpenAI": [CONTRIB / "openai.py"],
    "Replicate": [CONTRIB / "replicate.py"],
    "fal": [CONTRIB / "fal.py", CONTRIB / "fal_keys.py"],
    "Gemini": [HERE / "services" / "gemini.py"],
    "AssemblyAI": [HERE / "services" / "assemblyai.py"],
    "RunPod": [HERE / "services" / "runpod.py"],
    "ElevenLabs": [HERE / "services" / "elevenlabs.py"],
}
SAID = dict(re.findall(r"^\| (\w+) \|.*\| (\d+) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("service", MODULES)
def test_the_lines_are_counted(service: str):
    assert int(SAID[service]) == sum(lines_of_code(module) for module in MODULES[service])


@pytest.mark.parametrize(
    ("service", "most"), [(name, 80 if name in {"OpenAI", "Replicate", "fal"} else 40) for name in MODULES]
)
def test_no_class_is_longer_than_promised(service: str, most: int):
    assert lines_of_code(MODULES[service][0]) <= most


def test_blank_lines_comments_and_docstrings_are_not_counted(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""A module."""\n\n# why\nx = (\n    1,  # one\n)\n\n\ndef f():\n    """Return\n    it."""\n    return x\n'
    )
    assert lines_of_code(module) == 5


def test_the_page_says_that_no_live_service_was_asked():
    assert "None of this was tried against a live service." in PAGE
