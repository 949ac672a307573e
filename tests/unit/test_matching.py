"""The filter of `webhook.on(..., where=...)`."""

from __future__ import annotations

from typing import Any

import pytest

from flask_contenthub_webhook.matching import EXISTS, MISSING, matches

PAYLOAD = {
    "event": "illustrated",
    "metadata": {"topic": "news", "draft": False},
    "result": {"images": [{"url": "x"}], "cost": 1, "ratio": 0.5, "ok": True, "none": None, "empty": ""},
    "a.b": "dotted",
}


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"event": "illustrated"},
        {"metadata.topic": "news"},
        {"metadata.topic": ["sport", "news"]},
        {"metadata.topic": ("news",)},
        {"metadata.topic": {"news"}},
        {"metadata.topic": frozenset({"news"})},
        {"metadata.draft": False},
        {"result.cost": 1},
        {"result.cost": 1.0},
        {"result.ok": True},
        {"result.ok": [1, True]},
        {"result.images": EXISTS},
        {"result.empty": EXISTS},
        {"metadata": EXISTS},
        {"result.none": MISSING},
        {"result.nothing": MISSING},
        {"nothing.at.all": MISSING},
        {"result.cost.deeper": MISSING},
        {"result.none": None},
        {"event": "illustrated", "result.cost": 1, "result.error": MISSING},
    ],
    ids=str,
)
def test_the_filter_holds(where: dict[str, Any] | None):
    assert matches(PAYLOAD, where)


@pytest.mark.parametrize(
    "where",
    [
        {"event": "other"},
        {"event": "Illustrated"},
        {"metadata.topic": []},
        {"metadata.topic": ["sport"]},
        {"metadata.draft": 0},
        {"result.ok": 1},
        {"result.cost": True},
        {"result.cost": "1"},
        {"result.none": EXISTS},
        {"result.nothing": EXISTS},
        {"result.images": MISSING},
        {"result.images.url": EXISTS},
        {"result.images.0": EXISTS},
        {"result.nothing": "x"},
        {"event": "illustrated", "result.cost": 2},
    ],
    ids=str,
)
def test_the_filter_does_not_hold(where: dict[str, Any]):
    assert not matches(PAYLOAD, where)
