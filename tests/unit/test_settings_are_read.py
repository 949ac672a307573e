"""A configuration key that nothing reads is a promise that nobody keeps."""

from __future__ import annotations

import ast
from dataclasses import fields

import pytest

from flask_contenthub_webhook.config.settings import Settings
from tests.support.processes import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "flask_contenthub_webhook"
THROUGH_PROPERTIES = {"poll_max_interval": "poll_intervals"}


def attributes_read() -> set[str]:
    """The attributes that the package reads of anything called settings, outside of the configuration itself."""
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name != "config"]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_settings(node.value)}


def _is_settings(owner: ast.expr) -> bool:
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name.lstrip("_") == "settings"


READ = attributes_read()


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_every_setting_is_read_somewhere(field: str):
    assert THROUGH_PROPERTIES.get(field, field) in READ, f"nothing outside config/ reads settings.{field}"


def test_a_setting_that_nothing_reads_would_be_found():
    assert "colour" not in READ
