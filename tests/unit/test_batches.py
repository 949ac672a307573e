"""Taking a batch apart."""

from __future__ import annotations

import json

import pytest

from flask_contenthub_webhook.errors import InvalidPayload
from flask_contenthub_webhook.web.batches import MAX_ITEMS, BatchItem, split_batch


def test_items_come_out_in_order():
    items = split_batch({"events": [{"taskId": "a"}, {"taskId": "b"}, {"taskId": "c"}]})

    assert [item.task_id for item in items if isinstance(item, BatchItem)] == ["a", "b", "c"]


def test_an_empty_batch_has_no_items():
    assert split_batch({"events": []}) == []


@pytest.mark.parametrize("payload", [{}, {"events": None}, {"events": {}}, {"events": "x"}, {"events": 1}], ids=str)
def test_a_batch_needs_a_list_of_events(payload: dict[str, object]):
    with pytest.raises(InvalidPayload, match=r"\$\.events"):
        split_batch(payload)


def test_a_batch_has_a_bounded_number_of_events():
    assert len(split_batch({"events": [{}] * MAX_ITEMS})) == MAX_ITEMS
    with pytest.raises(InvalidPayload, match=str(MAX_ITEMS)):
        split_batch({"events": [{}] * (MAX_ITEMS + 1)})


@pytest.mark.parametrize("bad", [None, 1, "x", [], True], ids=str)
def test_an_item_that_is_no_object_stands_as_its_error(bad: object):
    first, second, third = split_batch({"events": [{"taskId": "a"}, bad, {"taskId": "c"}]})

    assert isinstance(first, BatchItem)
    assert isinstance(second, InvalidPayload)
    assert "$.events[1]" in second.message
    assert isinstance(third, BatchItem)


@pytest.mark.parametrize("bad", [1, True, [], {}], ids=str)
def test_a_token_must_be_text(bad: object):
    (item,) = split_batch({"events": [{"taskId": "a", "token": bad}]})

    assert isinstance(item, InvalidPayload)
    assert "token" in item.message


def test_what_only_the_batch_adds_is_not_part_of_the_event():
    (item,) = split_batch({"events": [{"taskId": "a", "event": "completed", "attempt": 2, "token": "t0ken"}]})

    assert isinstance(item, BatchItem)
    assert (item.attempt, item.token) == ("2", "t0ken")
    assert json.loads(item.body) == {"taskId": "a", "event": "completed"}


@pytest.mark.parametrize(
    ("names_senders", "token", "sender", "kept"),
    [(True, "t0ken", "hub", False), (True, None, None, True), (False, "t0ken", None, True)],
)
def test_a_sender_belongs_to_the_token_where_urls_name_senders(names_senders, token, sender, kept):
    (item,) = split_batch(
        {"events": [{"taskId": "a", "event": "note", "token": token, "sender": "hub"}]}, names_senders=names_senders
    )

    assert isinstance(item, BatchItem)
    assert (item.sender, "sender" in item.payload) == (sender, kept)


def test_a_sender_must_be_text():
    (item,) = split_batch({"events": [{"taskId": "a", "token": "t0ken", "sender": 1}]}, names_senders=True)

    assert isinstance(item, InvalidPayload)
    assert item.message == "The sender must be a string - at `$.events[0].sender`."


def test_the_body_of_an_item_is_the_event_as_it_would_have_been_sent_alone():
    (item,) = split_batch({"events": [{"event": "failed", "taskId": "a", "error": {"message": "失败"}}]})

    assert isinstance(item, BatchItem)
    assert item.body == '{"event":"failed","taskId":"a","error":{"message":"失败"}}'.encode()


@pytest.mark.parametrize("task_id", [None, 1, [], {}], ids=str)
def test_a_task_id_that_is_no_text_names_no_task(task_id: object):
    (item,) = split_batch({"events": [{"taskId": task_id}]})

    assert isinstance(item, BatchItem)
    assert item.task_id == ""
