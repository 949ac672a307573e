"""Filters and selections over JSON payloads: of subscriptions, of forwards, of stored results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.core.filters import EXISTS, MISSING, leave_out, matches, parse_where, pick, to_json

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


@pytest.mark.parametrize(
    ("value", "wanted", "holds"),
    [
        ({"a": True}, {"a": 1}, False),
        ({"a": [1, {"b": False}]}, {"a": [1, {"b": False}]}, True),
        ({"a": [1, {"b": False}]}, {"a": [1, {"b": 0}]}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([], {}, False),
    ],
    ids=str,
)
def test_equality_is_that_of_json_at_any_depth(value: Any, wanted: Any, holds: bool):
    assert matches({"x": value}, {"x": wanted}) == holds


# --- the JSON form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"a": 1, "b.c": "x", "d": None, "e": {"f": [1]}},
        {"a": ["x", "y"], "b": EXISTS, "c.d": MISSING},
    ],
    ids=str,
)
def test_a_filter_survives_json(where: dict[str, Any]):
    assert parse_where(json.loads(json.dumps(to_json(where)))) == where


def test_existence_has_a_json_form():
    written = {"a": {"$exists": True}, "b": {"$exists": False}}

    assert parse_where(written) == {"a": EXISTS, "b": MISSING}
    assert to_json({"a": EXISTS, "b": MISSING}) == written


def test_tuples_and_sets_become_lists():
    assert to_json({"a": ("x", "y"), "b": {"z"}, "c": frozenset({1})}) == {"a": ["x", "y"], "b": ["z"], "c": [1]}


def test_no_filter_stays_none():
    assert parse_where(None) is None


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("event", "must be a mapping"),
        (["event"], "must be a mapping"),
        ({"": 1}, "'' is not a valid path"),
        ({"a..b": 1}, "'a..b' is not a valid path"),
        ({".a": 1}, "is not a valid path"),
        ({"a.": 1}, "is not a valid path"),
        ({1: 1}, "'1' is not a valid path"),
        ({"a" * 256: 1}, "at most 255"),
        ({"a": {"$gt": 1}}, "the filter for a must be"),
        ({"a": {"$exists": "yes"}}, "the filter for a must be"),
        ({"a": {"$exists": True, "b": 1}}, "the filter for a must be"),
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused_with_what_is_allowed(where: Any, words: str):
    with pytest.raises(ValueError, match=words):
        parse_where(where)
    with pytest.raises(ValueError, match=words):
        ContentHubWebhook().on("illustrated", where=where)


# --- selections ----------------------------------------------------------------------------------------------

RESULT = {"content": "C", "metrics": {"cost": 1, "tokens": {"in": 2, "out": None}}, "images": [{"url": "x"}], "x.y": 1}


@pytest.mark.parametrize(
    ("paths", "picked"),
    [
        ([], {}),
        (["content"], {"content": "C"}),
        (["content", "nothing"], {"content": "C"}),
        (["metrics"], {"metrics": RESULT["metrics"]}),
        (["metrics.tokens.out"], {"metrics": {"tokens": {"out": None}}}),
        (["metrics.tokens.in", "metrics.cost"], {"metrics": {"cost": 1, "tokens": {"in": 2}}}),
        (["metrics.cost", "metrics"], {"metrics": RESULT["metrics"]}),
        (["metrics.nothing", "content.deeper", "images.url", "images.0", "x.y"], {}),
    ],
    ids=str,
)
def test_picking(paths: list[str], picked: dict[str, Any]):
    assert pick(RESULT, paths) == picked


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        ([], RESULT),
        (["content", "images", "metrics"], {"x.y": 1}),
        (["content", "images", "metrics.tokens"], {"metrics": {"cost": 1}, "x.y": 1}),
        (["content", "images", "metrics.tokens.in", "metrics.cost"], {"metrics": {"tokens": {"out": None}}, "x.y": 1}),
        (["content", "images", "metrics.tokens.in", "metrics"], {"x.y": 1}),
        (["nothing", "content.deeper", "images.url", "x.y"], RESULT),
    ],
    ids=str,
)
def test_leaving_out(paths: list[str], kept: dict[str, Any]):
    assert leave_out(RESULT, paths) == kept


def test_a_selection_leaves_the_payload_as_it_is():
    before = json.dumps(RESULT)
    pick(RESULT, ["metrics", "metrics.cost"])["metrics"] = None
    leave_out(RESULT, ["metrics.cost"])["content"] = None

    assert json.dumps(RESULT) == before
