"""Bodies that are not JSON, not an event, or slow to read, and random ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_contenthub_webhook.core.signatures import sign_github
from tests.support.adversarial_http import CONTRACT, MIB, PROGRESS, assert_untouched, assert_works_as_before, event
from tests.support.raw_http import callback, completed, failed, post
from tests.support.web_server import serve

BATCH = "/api/v1/content/callbacks"

COMPLETED = b'{"event":"completed","taskId":"ID","result":%b}'
FAILED = b'{"event":"failed","taskId":"ID","error":%b}'
CONTENT = COMPLETED % b'{"content":%b}'
WITH_FIELD = b'{"event":"completed","taskId":"ID","%b":%b,"result":{"content":"x"}}'


def nested(lists):
    return b'{"content":"x","a":%b}' % (b"[" * lists + b"]" * lists)


INVALID_JSON = {
    "NaN": COMPLETED % b'{"content":"x","qualityScore":NaN}',
    "Infinity": COMPLETED % b'{"content":"x","qualityScore":Infinity}',
    "-Infinity": COMPLETED % b'{"content":"x","metrics":{"cost":-Infinity}}',
    "1e400": COMPLETED % b'{"content":"x","qualityScore":1e400}',
    "-1e400 in an unknown field": COMPLETED % b'{"content":"x","new":[-1e400]}',
    "integer of 5,000 digits": COMPLETED % (b'{"content":"x","wordCount":%b}' % (b"9" * 5_000)),
    "fraction of 5,000 digits": COMPLETED % (b'{"content":"x","qualityScore":0.%b}' % (b"9" * 5_000)),
    "integer of 15,000,000 digits": COMPLETED % (b'{"content":"x","wordCount":%b}' % (b"9" * 15_000_000)),
    "NUL in the content": CONTENT % rb'"a\u0000b"',
    "NUL in a key": COMPLETED % rb'{"content":"x","a\u0000b":1}',
    "NUL in the metadata": WITH_FIELD % (b"metadata", rb'{"topic":"\u0000"}'),
    "NUL deep in an unknown field": COMPLETED % rb'{"content":"x","new":[[{"a":["\u0000"]}]]}',
    "NUL in the error": FAILED % rb'{"message":"\u0000"}',
    "NUL in the task id": rb'{"event":"completed","taskId":"ID\u0000","result":{"content":"x"}}',
    "NUL in the event": rb'{"event":"completed\u0000","taskId":"ID","result":{"content":"x"}}',
    "NUL as a raw byte": CONTENT % b'"a\x00b"',
    "high surrogate": CONTENT % rb'"\ud83d"',
    "low surrogate": CONTENT % rb'"\udc4d"',
    "surrogates the wrong way round": CONTENT % rb'"\udc4d\ud83d"',
    "surrogate in a key": COMPLETED % rb'{"content":"x","\ud83d":1}',
    "surrogate in an image's prompt": COMPLETED % rb'{"content":"x","images":[{"url":"u","prompt":"\ud83d"}]}',
    "surrogate as utf-8 bytes": CONTENT % b'"\xed\xa0\xbd"',
    "nested 100,000 lists": COMPLETED % (b'{"content":"x","a":%b}' % (b"[" * 100_000 + b"]" * 100_000)),
    "nested 100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested and never closed": b"[" * 100_000,
    "nested 900 lists": COMPLETED % (b'{"content":"x","a":%b}' % (b"[" * 900 + b"]" * 900)),
    "nested 65 lists": b'{"a":%b}' % (b"[" * 65 + b"]" * 65),
    "the same key twice": b'{"event":"completed","event":"failed","taskId":"ID","result":{"content":"x"}}',
    "the same key twice inside": COMPLETED % b'{"content":"x","content":"y"}',
    "the same key twice, once escaped": COMPLETED % rb'{"content":"x","c\u006fntent":"y"}',
    "latin-1": CONTENT % b'"caf\xe9"',
    "overlong utf-8": CONTENT % b'"\xc0\x80"',
    "utf-8 with a byte order mark": b"\xef\xbb\xbf" + completed("ID"),
    "utf-16 with a byte order mark": completed("ID").decode().encode("utf-16"),
    "utf-32": completed("ID").decode().encode("utf-32"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "empty": b"",
    "blanks": b" \r\n\t ",
    "a form": b"event=completed&taskId=ID",
    "two objects": completed("ID") + completed("ID"),
    "single quotes": b"{'event': 'completed'}",
    "trailing comma": b'{"event":"completed",}',
    "a comment": b'{"event":"completed"/**/}',
    "cut short": completed("ID")[:-1],
    "random bytes": bytes(range(256)),
}

INVALID_PAYLOAD = {
    "the first moment": b'{"event":"progress","taskId":"ID","timestamp":"0001-01-01T00:00:00Z"}',
    "the last moment": b'{"event":"progress","taskId":"ID","timestamp":"9999-12-31T23:59:59Z"}',
    "a list": b'[{"event":"completed","taskId":"ID","result":{"content":"x"}}]',
    "a string": b'"completed"',
    "null": b"null",
    "true": b"true",
    "a number": b"0",
    "an empty object": b"{}",
    "no event": b'{"taskId":"ID","result":{"content":"x"}}',
    "event null": b'{"event":null,"taskId":"ID"}',
    "event a list": b'{"event":["completed"],"taskId":"ID"}',
    "event an object": b'{"event":{},"taskId":"ID"}',
    "event empty": b'{"event":"","taskId":"ID"}',
    "no task id": b'{"event":"completed","result":{"content":"x"}}',
    "task id null": b'{"event":"completed","taskId":null,"result":{"content":"x"}}',
    "task id a number": b'{"event":"completed","taskId":1,"result":{"content":"x"}}',
    "task id empty": b'{"event":"completed","taskId":"","result":{"content":"x"}}',
    "task id of 3,000 characters": b'{"event":"completed","taskId":"%b","result":{"content":"x"}}' % (b"x" * 3_000),
    "status of another event": b'{"event":"completed","status":"failed","taskId":"ID","result":{"content":"x"}}',
    "result a string": COMPLETED % b'"content"',
    "result a number": COMPLETED % b"1",
    "content a number": CONTENT % b"1",
    "content a list": CONTENT % b'["x"]',
    "content an object": CONTENT % b"{}",
    "no error": b'{"event":"failed","taskId":"ID"}',
    "error null": FAILED % b"null",
    "error a list": FAILED % b"[]",
    "error without a message": FAILED % b"{}",
    "error's message a number": FAILED % b'{"message":1}',
    "no progress": b'{"event":"progress","taskId":"ID"}',
    "percentage 101": PROGRESS % b'{"percentage":101}',
    "percentage -1": PROGRESS % b'{"percentage":-1}',
    "percentage in words": PROGRESS % b'{"percentage":"half"}',
    "percentage true": PROGRESS % b'{"percentage":true}',
    "percentage of 60 digits": PROGRESS % (b'{"percentage":%b}' % (b"9" * 60)),
}

UNKNOWN_EVENT = {
    "of another kind": b'{"event":"exploded","taskId":"ID"}',
    "in capitals": b'{"event":"COMPLETED","taskId":"ID","result":{"content":"x"}}',
    "with a blank": b'{"event":"completed ","taskId":"ID","result":{"content":"x"}}',
    "of unicode": '{"event":"完成","taskId":"ID"}'.encode(),
    "of markup": b'{"event":"<script>","taskId":"ID"}',
}

ODD_BUT_GOOD = {
    "an unknown field": b'{"event":"completed","taskId":"ID","new":{"a":[1,null]},"result":{"content":"x","b":1}}',
    "escaped emoji": CONTENT % rb'"\ud83d\ude80"',
    "escaped backslash before u0000": CONTENT % rb'"a\\u0000b"',
    "every control character but NUL": CONTENT % json.dumps("".join(map(chr, range(1, 32)))).encode(),
    "noncharacters and bidi marks": CONTENT % json.dumps("\uffff\ufffe\u202e\u2028\U0010ffff").encode(),
    "an integer of 60 digits in an unknown field": COMPLETED % (b'{"content":"x","new":%b}' % (b"9" * 60)),
    "the largest float": COMPLETED % b'{"content":"x","qualityScore":1.7976931348623157e308}',
    "an image as a string, one as an object": COMPLETED % b'{"content":"x","images":["u",{"url":"v","width":1.5}]}',
    "nested 28 lists": COMPLETED % nested(28),
    "blanks around": b" \r\n" + CONTENT % b'"x"' + b"\n\n",
    "the first moment of computers": WITH_FIELD % (b"timestamp", b'"1970-01-01T00:00:00Z"'),
    "SQL": CONTENT % b'"\'; DROP TABLE contents; --"',
    "format characters": CONTENT % b'"%s %(a)s {0} {a!r} %"',
    "word count a string": COMPLETED % b'{"content":"x","wordCount":"many"}',
    "word count a fraction": COMPLETED % b'{"content":"x","wordCount":1.5}',
    "word count of 60 digits": COMPLETED % (b'{"content":"x","wordCount":%b}' % (b"9" * 60)),
    "word count true": COMPLETED % b'{"content":"x","wordCount":true}',
    "quality score a string": COMPLETED % b'{"content":"x","qualityScore":"8"}',
    "images a string": COMPLETED % b'{"content":"x","images":"http://x"}',
    "images an object": COMPLETED % b'{"content":"x","images":{"url":"u"}}',
    "images of numbers": COMPLETED % b'{"content":"x","images":[1]}',
    "images of lists": COMPLETED % b'{"content":"x","images":[["u"]]}',
    "images of nulls": COMPLETED % b'{"content":"x","images":[null]}',
    "an image without a url": COMPLETED % b'{"content":"x","images":[{"prompt":"p"}]}',
    "an image's url a number": COMPLETED % b'{"content":"x","images":[{"url":1}]}',
    "metrics a list": COMPLETED % b'{"content":"x","metrics":[]}',
    "metadata a list": b'{"event":"completed","taskId":"ID","metadata":[],"result":{"content":"x"}}',
    "timestamp a number": b'{"event":"completed","taskId":"ID","timestamp":1,"result":{"content":"x"}}',
    "timestamp no time": b'{"event":"completed","taskId":"ID","timestamp":"yesterday","result":{"content":"x"}}',
    "timestamp before all time": (
        b'{"event":"completed","taskId":"ID","timestamp":"0001-01-01T00:00:00+14:00","result":{"content":"x"}}'
    ),
}


class TestBodies:
    @pytest.mark.parametrize("body", INVALID_JSON.values(), ids=INVALID_JSON.keys())
    def test_what_is_not_strict_json(self, web, body):
        self.assert_refused(web, body, "invalid_json")

    @pytest.mark.parametrize("body", INVALID_PAYLOAD.values(), ids=INVALID_PAYLOAD.keys())
    def test_what_is_no_event(self, web, body):
        self.assert_refused(web, body, "invalid_payload")

    @pytest.mark.parametrize("body", UNKNOWN_EVENT.values(), ids=UNKNOWN_EVENT.keys())
    def test_an_event_that_nobody_knows(self, web, body):
        self.assert_refused(web, body, "unknown_event")

    def assert_refused(self, web, body, code):
        task_id = web.database.add_task()

        answer = web.post(task_id, event(task_id, body))

        assert (answer.status, answer.code) == (400, code)
        assert answer.seconds < 5
        assert len(answer.body) < 2_000
        assert_untouched(web, task_id)

    @pytest.mark.parametrize("body", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD.keys())
    def test_what_is_odd_but_good(self, web, body):
        task_id = web.database.add_task()

        answer = web.post(task_id, event(task_id, body))

        assert (answer.status, answer.outcome) == (200, "processed")
        assert web.post(task_id, event(task_id, body)).outcome == "duplicate"
        assert web.database.contents(task_id) == {task_id: 1}

    def test_what_only_mariadb_finds_too_deep_is_kept_for_a_person_there(self, web):
        task_id = web.database.add_task()

        answer = web.post(task_id, event(task_id, COMPLETED % nested(60)))

        if web.database.engine.dialect.name == "mysql":  # its JSON ends at 32 levels
            assert (answer.status, answer.code) == (500, "handler_failed")
            assert web.database.verdicts(task_id) == ["failed"]
        else:
            assert (answer.status, answer.outcome) == (200, "processed")

    @pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Shanghai"])
    def test_progress_at_the_ends_of_time_does_not_close_the_task_to_later_events(self, postgres_url, tmp_path, zone):
        """PostgreSQL answers in the zone of its session, where the first or the last moment may be out of range."""
        with serve(f"{postgres_url}&options=-c%20timezone%3D{zone}", tmp_path, workers=1) as web:
            for moment in (b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59.999999Z"):
                task_id = web.database.add_task()
                for percentage in (b"10", b"20"):
                    body = b'{"event":"progress","taskId":"ID","timestamp":"%b","progress":{"percentage":%b}}'
                    assert web.post(task_id, event(task_id, body % (moment, percentage))).status in {200, 400}

                assert web.post(task_id, completed(task_id)).outcome == "processed"

    @pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"events":null}', b'{"events":{}}', b'{"events":"a"}'])
    def test_a_batch_that_is_none(self, web, body):
        answer = web.send(post(BATCH, body))

        assert (answer.status, answer.code) == (400, "invalid_payload")

    def test_a_batch_too_long(self, web):
        answer = web.send(post(BATCH, b'{"events":[%b]}' % b",".join([b"{}"] * 1_001)))

        assert (answer.status, answer.code) == (400, "invalid_payload")

    def test_the_bad_items_of_a_batch_do_not_spoil_the_good_ones(self, web):
        good, other, bad = web.database.add_tasks(3)
        items = [
            b"null",
            b"[]",
            b'"x"',
            b"1",
            b"{}",
            event(bad, COMPLETED % b"1"),
            event(bad, b'{"event":"no","taskId":"ID"}'),
        ]
        items += [b'{"taskId":%b}' % odd for odd in (b"{}", b'"../x"', b'"\\ud83d\\ude80"', b'"%b"' % (b"x" * 3_000))]
        items += [b'{"token":1}', b'{"attempt":{}}', b'{"attempt":1e300}', b'{"attempt":-1,"token":""}']
        items = [completed(good), *items, completed(other)]

        answer = web.send(post(BATCH, b'{"events":[%b]}' % b",".join(items)))

        assert answer.status == 200
        results = answer.json["results"]
        assert [result["success"] for result in results] == [True, *[False] * (len(items) - 2), True]
        assert {result["status"] for result in results[1:-1]} <= CONTRACT
        assert web.database.contents(good, other, bad) == {good: 1, other: 1, bad: 0}


class TestQuadratic:
    """Bodies within the limits that cost more than their size, where the parser is careless."""

    def test_a_repeated_key_after_very_many(self, web):
        body = b"{" + b"".join(b'"%d":1,' % number for number in range(400_000)) + b'"399999":1}'

        self.assert_refused_soon(web, body)

    def test_an_endless_string_of_escaped_quotes(self, web):
        self.assert_refused_soon(web, b'{"a":"' + b'\\",' * 4_000_000)

    def test_very_many_quotes(self, web):
        self.assert_refused_soon(web, b'{"a":[' + b'",' * 7_000_000)

    def test_very_many_backslashes(self, web):
        self.assert_refused_soon(web, b'{"a":"' + b"\\," * 7_000_000)

    def test_very_many_values_under_long_names(self, web):
        names = b'{"%b":' % ("🎉" * 40).encode() * 60
        self.assert_refused_soon(web, b'{"a":"\\u0041","b":' + names + b"[" + b"0," * 499_000 + b"0]" + b"}" * 61)

    @pytest.mark.parametrize("name", ["x", "9"])
    def test_signed_wrongly(self, signed, name):
        task_id = signed.database.add_task()
        keys = b",".join(b'"%b%d":1.5' % (name.encode(), number) for number in range(99_000))

        answer = signed.post(task_id, b"{" + keys + b"}", headers={"X-Webhook-Signature": "0" * 64})

        assert (answer.status, answer.code) == (401, "signature_invalid")
        assert answer.seconds < 5

    def assert_refused_soon(self, web, body):
        assert len(body) <= 16 * MIB
        task_id = web.database.add_task()

        answer = web.send(post(callback(task_id), body), timeout=15)

        assert answer.status == 400
        assert answer.seconds < 5


class TestFuzz:
    @settings(
        max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        body=st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=8,
            ).map(lambda value: json.dumps(value).encode()),
            st.fixed_dictionaries(
                {"event": st.sampled_from(["completed", "failed", "progress"]), "taskId": st.just("ID") | st.text()},
                optional={
                    name: st.recursive(
                        st.none() | st.integers() | st.floats() | st.text(),
                        lambda inner: (
                            st.lists(inner)
                            | st.dictionaries(
                                st.sampled_from(["content", "message", "percentage", "images", "url"]), inner
                            )
                        ),
                        max_leaves=6,
                    )
                    for name in ("result", "error", "progress", "timestamp", "metadata", "status", "workflowType")
                },
            ).map(lambda value: json.dumps(value).encode()),
        ),
        type_=st.sampled_from(["application/json"] * 9 + ["text/plain"]),
    )
    def test_random_bodies_get_an_answer_of_the_contract(self, web, body, type_):
        task_id = web.database.add_task()

        answer = web.post(task_id, event(task_id, body), headers={"Content-Type": type_})

        assert answer.status in CONTRACT
        assert isinstance(answer.json["success"], bool)

    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        position=st.integers(0, 10_000),
        byte=st.integers(0, 255),
        cut=st.booleans(),
        make_body=st.sampled_from([completed, failed]),
    )
    def test_damaged_events_get_an_answer_of_the_contract(self, web, position, byte, cut, make_body):
        task_id = web.database.add_task()
        body = bytearray(make_body(task_id, "你好 🎉"))
        position %= len(body)
        body[position : len(body) if cut else position + 1] = bytes([byte])

        assert web.post(task_id, bytes(body)).status in CONTRACT


def test_after_all_of_this_the_servers_work_as_before(web, signed):
    assert_works_as_before(web)
    assert_works_as_before(signed, sign_github)
