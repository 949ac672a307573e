"""The canonical forms of a JSON body."""

from __future__ import annotations

import json
import sys
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_contenthub_webhook.core import canonical
from flask_contenthub_webhook.core.canonical import MAX_BYTES, MAX_VALUES, canonical_forms, canonical_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def forms(body: bytes) -> list[bytes]:
    return list(canonical_forms(body))


def test_the_form_of_the_original_has_sorted_keys_no_blanks_and_ascii_escapes():
    assert canonical_json({"b": "中", "a": 1.0}) == b'{"a":1.0,"b":"\\u4e2d"}'


def test_the_first_form_is_the_one_of_the_original():
    assert forms(b'{"b": "\xe4\xb8\xad", "a": 1}')[0] == b'{"a":1,"b":"\\u4e2d"}'


def test_the_same_without_escapes_comes_second():
    assert forms('{"b": "中", "a": 1}'.encode())[1] == '{"a":1,"b":"中"}'.encode()


def test_a_javascript_form_keeps_numbers_as_the_body_spells_them():
    assert forms(b'{"b":1e21,"a":8}')[-1] == b'{"a":8,"b":1e21}'


def test_a_javascript_form_puts_array_indexes_first_and_in_numeric_order():
    assert b'{"2":1,"10":1,"01":1,"4294967295":1,"a":1}' in forms(
        b'{"a": 1, "10": 1, "01": 1, "2": 1, "4294967295": 1}'
    )


def test_a_javascript_form_with_plainly_sorted_keys_is_there_too():
    assert b'{"10":1e2,"2":1,"a":1}' in forms(b'{"a": 1, "10": 1e2, "2": 1}')


def test_a_javascript_form_sorts_by_utf16_code_units():
    body = json.dumps({"\uffff": 1, "\U0001f600": 2}, ensure_ascii=False).encode()
    assert '{"\U0001f600":2,"\uffff":1}'.encode() in forms(body)


def test_nested_objects_are_sorted_as_well():
    assert forms(b'[{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":null}]') == [b'[{"a":null,"b":{"c":[{"e":2,"f":1}],"d":1}}]']


def test_a_body_that_is_canonical_already_has_no_other_form():
    assert forms(b'{"a":1,"b":[true,false,null,"x"]}') == []


def test_no_form_comes_twice():
    made = forms(b'{"b": "x", "a": 1}')
    assert made == [b'{"a":1,"b":"x"}']


def test_a_form_is_made_only_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    def never(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(canonical, "_javascript", never)
    assert list(islice(canonical_forms('{"b":"中","a":1}'.encode()), 1)) == [b'{"a":1,"b":"\\u4e2d"}']


def test_a_lone_surrogate_has_the_two_forms_that_a_sender_can_write():
    assert forms(b'{"b":"\\uD800","a":1.50}') == [b'{"a":1.5,"b":"\\ud800"}', b'{"a":1.50,"b":"\\ud800"}']


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"a=1",
        b'{"a":1} x',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{ }",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\x00"}',
        b"[ " * 200_000,
        b'{"a": ' * 90_000 + b"1" + b"}" * 90_000,
        b"[ " * 90_000 + b"]" * 90_000,
        b"[ " + b"1," * MAX_VALUES + b"1]",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_not_json_or_costs_too_much_has_no_form(body: bytes):
    assert forms(body) == []


def test_an_article_full_of_commas_and_brackets_has_its_forms():
    article = {"result": {"content": "one, [two](#), {three}; " * 2_000, "wordCount": 3}, "event": "completed"}
    assert forms(json.dumps(article).encode()) == [canonical_json(article)]


def test_the_larger_a_body_is_the_fewer_values_it_may_have():
    def has_forms(length: int, values: int) -> bool:
        return bool(forms(b'[ "' + b"x" * length + b'"' + b",0" * values + b"]"))

    assert has_forms(MAX_BYTES - 1_000, 0)
    assert has_forms(0, MAX_VALUES - 10)
    assert has_forms(MAX_BYTES // 2, MAX_VALUES // 2 - 10)
    assert not has_forms(MAX_BYTES, 0)
    assert not has_forms(0, MAX_VALUES)
    assert not has_forms(MAX_BYTES // 2, MAX_VALUES // 2)


def test_a_number_with_more_digits_than_python_parses_has_only_javascript_forms():
    digits = b"9" * (sys.get_int_max_str_digits() + 1)
    assert forms(b'{ "a":' + digits + b"}") == [b'{"a":' + digits + b"}"]


@given(st.binary())
def test_no_bytes_make_it_raise(body: bytes):
    assert len(forms(body)) <= 4


@given(JSON)
def test_every_form_means_what_the_body_means(value: object):
    body = json.dumps(value, indent=1).encode()
    for form in canonical_forms(body):
        assert json.loads(form) == value
