"""Strict JSON: one reading or none."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_contenthub_webhook.core.strict_json import MAX_DEPTH, MAX_NUMBER_LENGTH, MAX_VALUES, parse_object
from flask_contenthub_webhook.errors import InvalidJSON, InvalidPayload

SURROGATES = st.characters(codec="utf-8", exclude_characters="\0")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(SURROGATES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(SURROGATES), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(SURROGATES), VALUES, max_size=5), st.booleans())
def test_what_json_can_say_is_read_as_json_reads_it(value: dict[str, object], escaped: bool):
    body = json.dumps(value, ensure_ascii=escaped).encode()

    assert parse_object(body) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes):
    with contextlib.suppress(InvalidJSON, InvalidPayload):
        assert isinstance(parse_object(body), dict)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1}{"b":2}',
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":-1e400}',
        b'{"a":01}',
        b'{"a":"tab\there"}',
        b'{"a":"nul\x00here"}',
        rb'{"a":"\u0000"}',
        rb'{"\u0000":1}',
        rb'{"a":["b",{"c":"\u0000"}]}',
        rb'{"a":"\ud800"}',
        rb'{"a":"\udfff x"}',
        rb'{"\ud83d":1}',
        rb'{"a":"\ude80\ud83d"}',
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"b":2,"a":1}}',
        rb'{"a":1,"\u0061":2}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        '{"a":1}'.encode("utf-8-sig"),
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":0.' + b"9" * 5000 + b"}",
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"a":[' + b"[]," * MAX_VALUES + b"[]]}",
    ],
    ids=lambda body: ascii(body[:24]),
)
def test_what_could_be_read_in_two_ways_or_not_be_stored_is_refused(body: bytes):
    with pytest.raises(InvalidJSON):
        parse_object(body)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"1.5", b"true", b"null"])
def test_only_an_object_is_accepted(body: bytes):
    with pytest.raises(InvalidPayload, match="must be a JSON object"):
        parse_object(body)


def test_the_message_says_what_stands_there_instead_of_an_object():
    kinds = {b"[]": "a list", b'""': "a string", b"1": "a number", b"true": "a boolean", b"null": "null"}

    for body, kind in kinds.items():
        with pytest.raises(InvalidPayload, match=kind):
            parse_object(body)


def test_surrogate_pairs_are_characters():
    assert parse_object(rb'{"a":"\ud83d\ude80"}') == {"a": "🚀"}


def test_escaped_backslashes_are_no_escapes():
    assert parse_object(rb'{"a":"\\u0000 \\ud800"}') == {"a": r"\u0000 \ud800"}


def test_the_deepest_nesting_that_is_allowed_is_read():
    body = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"

    assert "a" in parse_object(body)
    with pytest.raises(InvalidJSON, match="deeper"):
        parse_object(body.replace(b"[]", b"[[]]"))


def test_the_longest_number_that_is_allowed_is_read():
    assert parse_object(b'{"a":' + b"9" * MAX_NUMBER_LENGTH + b"}")["a"] == int("9" * MAX_NUMBER_LENGTH)
    with pytest.raises(InvalidJSON, match=str(MAX_NUMBER_LENGTH)):
        parse_object(b'{"a":' + b"9" * (MAX_NUMBER_LENGTH + 1) + b"}")


def test_brackets_and_commas_inside_text_are_no_values():
    text = ",[{" * MAX_VALUES

    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}


def test_the_refusal_says_where_the_text_is():
    with pytest.raises(InvalidJSON, match=r"\$\.result\.images\[1\]\.url"):
        parse_object(rb'{"result":{"images":[{"url":"x"},{"url":"\u0000"}]}}')


def test_the_refusal_names_the_repeated_name_in_printable_characters():
    with pytest.raises(InvalidJSON, match=r"\\u952e"):
        parse_object('{"键":1,"键":2}'.encode())


def test_a_repeated_name_among_many_is_found_quickly():
    names = ",".join(f'"a{index}":0' for index in range(20_000))
    started = time.perf_counter()

    with pytest.raises(InvalidJSON, match="twice"):
        parse_object(f'{{{names},"x":0,"x":0}}'.encode())

    assert time.perf_counter() - started < 1


def test_an_unclosed_text_full_of_escaped_quotes_is_refused_quickly():
    body = b"," * (MAX_VALUES + 1) + b'"' + b'\\"' * 20_000
    started = time.perf_counter()

    with pytest.raises(InvalidJSON):
        parse_object(body)

    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_byte_order_mark_is_called_by_its_name(encoding: str):
    text = '{"a":1}' if encoding in {"utf-8-sig", "utf-16", "utf-32"} else '\ufeff{"a":1}'

    with pytest.raises(InvalidJSON, match="begins with a byte order mark"):
        parse_object(text.encode(encoding))
