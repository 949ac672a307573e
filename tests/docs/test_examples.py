"""The example board and the example rules ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tables import HERE
from flask_contenthub_webhook.contrib.prometheus import METRICS

BOARD, RULES = HERE / "examples" / "grafana.json", HERE / "examples" / "alerts.yml"
LABELS = {name: {*metric.labels, "le"} for metric in METRICS for name in metric.sample_names}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(BOARD.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]


def queries() -> list[Any]:
    """Every query, under the name of where it stands."""
    asked = [(rule["alert"], rule["expr"]) for rule in rules()]
    asked += [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    return [pytest.param(query, id=place) for place, query in asked]


@pytest.mark.parametrize("query", queries())
def test_every_metric_and_label_of_a_query_exists(query: str):
    names = re.findall(r"contenthub_webhook_\w+", query)
    assert names
    assert set(names) <= set(LABELS)

    allowed = set.union(*(LABELS[name] for name in names))
    grouped = re.findall(r"\bby \(([^)]*)\)", query)
    matched = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query)
    assert {label.strip() for group in grouped for label in group.split(",")} | set(matched) <= allowed


@pytest.mark.parametrize("query", queries())
def test_gauges_that_every_instance_shows_alike_are_never_summed_over_instances(query: str):
    gauges = {metric.name for metric in METRICS if metric.kind == "gauge"}

    for gauge in gauges & set(re.findall(r"contenthub_webhook_\w+", query)):
        before = query.partition(gauge)[0]
        assert re.search(r"(max|absent)\s*(by \(\w+\) )?\($", before), before


def test_every_metric_is_on_the_board():
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])

    assert [metric.name for metric in METRICS if metric.name not in shown] == []


def test_the_panels_do_not_overlap_and_have_ids_of_their_own():
    board = json.loads(BOARD.read_text(encoding="utf-8"))["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board}) == len(board)


def test_every_rule_says_what_happened():
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_promtool_accepts_the_rules():
    checked = subprocess.run(["promtool", "check", "rules", str(Path(RULES))], capture_output=True, check=False)

    assert checked.returncode == 0, checked.stderr
