"""Whatever bytes arrive, the answer is one of the HTTP contract's, soon, and the server is none the worse for it."""

from __future__ import annotations

import json
import threading
import time
import wsgiref.simple_server

import pytest
import werkzeug.serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_contenthub_webhook.core.signatures import sign_contenthub, sign_github, sign_standard, sign_url
from tests.support.raw_http import callback, chunks, completed, failed, pieces_of, post, send
from tests.support.web_host import create_app, db
from tests.support.web_server import figure, serve

SECRET = "a-secret-of-more-than-thirty-two-characters"
MIB = 1024 * 1024
BATCH = "/api/v1/content/callbacks"
CONTRACT = {200, 400, 401, 403, 404, 409, 413, 415, 429}
OWN_REFUSALS_OF_GUNICORN = {400, 414, 431}
CHUNKED = {"Content-Length": None, "Transfer-Encoding": "chunked"}
MOST_MEMORY = 200 * MIB


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url_of(request, postgres, tmp_path_factory):
    def make():
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('adversarial') / 'test.db'}"
        return postgres.create_database()

    return make


@pytest.fixture(scope="module")
def web(url_of, tmp_path_factory):
    """A host without a secret: everything gets as far as it can."""
    with serve(url_of(), tmp_path_factory.mktemp("open"), env={"TEST_HOST_PROXY_FIX": "1"}) as web:
        yield web


@pytest.fixture(scope="module")
def signed(url_of, tmp_path_factory):
    """A host that believes nothing unsigned."""
    env = {"WEBHOOK_SECRET_KEY": SECRET, "WEBHOOK_REQUIRE_SIGNATURE": "true"}
    with serve(url_of(), tmp_path_factory.mktemp("strict"), env=env) as web:
        yield web


@pytest.fixture(autouse=True)
def _no_worker_died(request):
    """No input takes a worker down, whatever the client is told."""
    servers = [request.getfixturevalue(name) for name in ("web", "signed") if name in request.fixturenames]
    before = [server.gunicorn.worker_pids() for server in servers]
    yield
    assert [server.gunicorn.worker_pids() for server in servers] == before


def event(task_id, body):
    """A body, with the task's id where the text says ID."""
    return body.replace(b"ID", task_id.encode())


def assert_untouched(web, *task_ids):
    for task_id in task_ids:
        assert web.database.status(task_id) == "submitted"
        assert web.database.contents(task_id) == {task_id: 0}


COMPLETED = b'{"event":"completed","taskId":"ID","result":%b}'
FAILED = b'{"event":"failed","taskId":"ID","error":%b}'
PROGRESS = b'{"event":"progress","taskId":"ID","progress":%b}'
CONTENT = COMPLETED % b'{"content":%b}'
WITH_FIELD = b'{"event":"completed","taskId":"ID","%b":%b,"result":{"content":"x"}}'

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
    "result null": COMPLETED % b"null",
    "result a list": COMPLETED % b"[]",
    "result a string": COMPLETED % b'"content"',
    "result a number": COMPLETED % b"1",
    "content a number": CONTENT % b"1",
    "content a list": CONTENT % b'["x"]',
    "content an object": CONTENT % b"{}",
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
    "no error": b'{"event":"failed","taskId":"ID"}',
    "error a string": FAILED % b'"no luck"',
    "error null": FAILED % b"null",
    "error a list": FAILED % b"[]",
    "error without a message": FAILED % b"{}",
    "error's message a number": FAILED % b'{"message":1}',
    "error's details a string": FAILED % b'{"message":"m","details":"d"}',
    "no progress": b'{"event":"progress","taskId":"ID"}',
    "percentage 101": PROGRESS % b'{"percentage":101}',
    "percentage -1": PROGRESS % b'{"percentage":-1}',
    "percentage a string": PROGRESS % b'{"percentage":"50"}',
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
    "nested 60 lists": COMPLETED % (b'{"content":"x","a":%b}' % (b"[" * 60 + b"]" * 60)),
    "blanks around": b" \r\n" + CONTENT % b'"x"' + b"\n\n",
    "the first moment of computers": WITH_FIELD % (b"timestamp", b'"1970-01-01T00:00:00Z"'),
    "SQL": CONTENT % b'"\'; DROP TABLE contents; --"',
    "format characters": CONTENT % b'"%s %(a)s {0} {a!r} %"',
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
            event(bad, COMPLETED % b"null"),
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


class TestLengths:
    def test_50_mb_with_a_length(self, web):
        head = post(callback(web.database.add_task()), b"", {"Content-Length": str(50 * MIB)})

        answer = web.send(pieces_of(head, 50 * MIB))

        assert (answer.status, answer.code) == (413, "payload_too_large")

    @pytest.mark.parametrize("start", [b"", b'{"event":"completed","taskId":"ID","result":{"content":"x"}}'])
    def test_50_mb_in_chunks(self, web, start):
        """Also where the part within the limit would be an event by itself: it is not what was sent."""
        task_id = web.database.add_task()

        def request():
            yield post(callback(task_id), b"", CHUNKED)
            if start:
                yield b"%x\r\n%b\r\n" % (len(event(task_id, start)), event(task_id, start))
            for _ in range(50):
                yield b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
            yield b"0\r\n\r\n"

        answer = web.send(request())

        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert_untouched(web, task_id)

    def test_one_byte_too_many_in_chunks(self, web):
        task_id = web.database.add_task()
        body = completed(task_id).ljust(16 * MIB + 1)

        answer = web.send([post(callback(task_id), b"", CHUNKED), chunks(body[:MIB], body[MIB:])])

        assert (answer.status, answer.code) == (413, "payload_too_large")

    @pytest.mark.parametrize("headers", [None, CHUNKED], ids=["length", "chunks"])
    def test_exactly_as_much_as_is_allowed(self, web, headers):
        task_id = web.database.add_task()
        body = completed(task_id).ljust(16 * MIB)

        answer = web.send(
            [
                post(callback(task_id), b"", headers or {"Content-Length": str(len(body))}),
                body if headers is None else chunks(body),
            ]
        )

        assert (answer.status, answer.outcome) == (200, "processed")

    def test_chunks_are_put_together(self, web):
        task_id = web.database.add_task()
        body = completed(task_id, "你好 🎉")

        answer = web.send(post(callback(task_id), b"", CHUNKED) + chunks(*(bytes([byte]) for byte in body)))

        assert (answer.status, answer.outcome) == (200, "processed")

    @pytest.mark.parametrize(
        "raw",
        [
            b"zz\r\nabc\r\n0\r\n\r\n",
            b"5\r\nabcdefgh\r\n0\r\n\r\n",
            b"-5\r\nabcde\r\n0\r\n\r\n",
            b"5 \r\nabcde\r\n0\r\n\r\n",
            b"0x5\r\nabcde\r\n0\r\n\r\n",
            b"5;" + b"x" * 20_000 + b"\r\nabcde\r\n0\r\n\r\n",
            b"0" * 100_000 + b"5\r\nabcde\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nabcde\r\n",
            b"50\r\nabcde",
            b"5\r\nabcde\r\n",
            b"\r\n\r\n",
            b"",
            b"\x00\xff\xfe\r\n",
        ],
        ids=lambda raw: ascii(raw[:12]),
    )
    def test_broken_chunks(self, web, raw):
        task_id = web.database.add_task()

        answer = web.send(post(callback(task_id), b"", CHUNKED) + raw, half_close=True)

        assert answer.status == 400
        assert_untouched(web, task_id)

    def test_less_than_announced(self, web):
        """The part that came is an event by itself, but nobody knows what the rest would have been."""
        task_id = web.database.add_task()

        answer = web.send(post(callback(task_id), completed(task_id), {"Content-Length": "5000"}), half_close=True)

        assert (answer.status, answer.code) == (400, "invalid_json")
        assert_untouched(web, task_id)

    def test_more_than_announced(self, web):
        task_id = web.database.add_task()

        answer = web.send(post(callback(task_id), completed(task_id), {"Content-Length": "50"}))

        assert (answer.status, answer.code) == (400, "invalid_json")
        assert_untouched(web, task_id)

    @pytest.mark.parametrize("length", ["-1", "abc", "1e3", "+5", "0x10", "", "5, 5", "9" * 30, "9" * 5_000])
    def test_a_length_that_is_none(self, web, length):
        task_id = web.database.add_task()

        answer = web.send(post(callback(task_id), completed(task_id), {"Content-Length": length}), half_close=True)

        assert answer.status in {400, 413}
        assert_untouched(web, task_id)

    @pytest.mark.parametrize("headers", [{"Content-Length": None}, {"Content-Length": "0"}])
    def test_no_length_at_all(self, web, headers):
        task_id = web.database.add_task()

        answer = web.send(post(callback(task_id), completed(task_id), headers))

        assert (answer.status, answer.code) == (400, "invalid_json")

    def test_a_length_and_chunks(self, web):
        task_id = web.database.add_task()
        headers = {"Transfer-Encoding": "chunked", "Content-Length": "5"}

        answer = web.send(post(callback(task_id), b"", headers) + chunks(completed(task_id)))

        assert answer.status == 400
        assert_untouched(web, task_id)


class TestContentTypes:
    @pytest.mark.parametrize(
        "type_",
        [
            None,
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "application/json+x",
            "application/",
            "json",
            "*/*",
            ";",
            b"\xff\xfe",
        ],
    )
    def test_other_than_json(self, web, type_):
        task_id = web.database.add_task()

        answer = web.post(task_id, completed(task_id), headers={"Content-Type": type_})

        assert (answer.status, answer.code) == (415, "unsupported_media_type")
        assert_untouched(web, task_id)

    @pytest.mark.parametrize(
        "type_",
        [
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            "application/cloudevents+json",
            "image/svg+json",
            "application/json;",
            "application/json; charset=utf-16",
        ],
    )
    def test_json_by_any_name(self, web, type_):
        task_id = web.database.add_task()

        assert web.post(task_id, completed(task_id), headers={"Content-Type": type_}).outcome == "processed"


class TestTasks:
    @pytest.mark.parametrize(
        "path",
        ["nope", "00000000-0000-4000-8000-000000000000", "a/b/c", "a%2Fb", "..", "../../../etc/passwd", "%2e%2e%2f",
         ".", "...", "%00", "a%00b", "%E4%BD%A0%E5%A5%BD", "%F0%9F%8E%89", "%ff%fe", "%zz", "%", "x" * 3_000, "%20",
         "a+b", "a;b", "a:b@c", "'%20OR%20'1'='1", "%25s", "%7B0%7D", "a%3Fb", "a%23b", "a//b", "a/",
         "%EF%BB%BF", "a%7Fb"],
        ids=lambda path: path[:24],
    )  # fmt: skip
    def test_an_id_that_nobody_has(self, web, path):
        answer = web.send(post(callback(path), completed("some-task")))

        assert (answer.status, answer.code) == (404, "task_not_found")

    @pytest.mark.parametrize("path", ["", "/", "//x", "a%0Ab", "%0D%0ASet-Cookie:%20a=b", "%2F"])
    def test_an_id_that_is_no_part_of_a_path(self, web, path):
        answer = web.send(post(callback(path), completed("some-task")))

        assert answer.status == 404
        assert "Set-Cookie" not in answer.headers

    @pytest.mark.parametrize("path", ["%E4" * 1_500, "x" * 8_000])
    def test_an_id_longer_than_the_server_takes(self, web, path):
        answer = web.send(post(callback(path), completed("some-task")))

        assert answer.status in OWN_REFUSALS_OF_GUNICORN

    @pytest.mark.parametrize("attempt", ["0", "-1", "1.5", "abc", "", "9" * 5_000, "%00", "１", "+1", "1%0A", "0x1"])
    def test_an_attempt_that_is_none(self, web, attempt):
        task_id = web.database.add_task()
        query = f"attempt={attempt}" if len(attempt) < 1_000 else f"attempt={attempt[:3000]}"

        answer = web.post(task_id, completed(task_id), query=query.replace("１", "%EF%BC%91"))

        assert (answer.status, answer.code) == (400, "invalid_payload")
        assert_untouched(web, task_id)

    def test_an_attempt_far_ahead(self, web):
        task_id = web.database.add_task()

        assert web.post(task_id, failed(task_id), query="attempt=999999999").outcome == "stale"
        assert web.database.status(task_id) == "submitted"

    def test_a_payload_of_another_task(self, web):
        mine, yours = web.database.add_tasks(2)

        for body in (completed(mine), failed(mine), event(mine, PROGRESS % b'{"percentage":5}'), completed("x" * 255)):
            answer = web.post(yours, body)
            assert (answer.status, answer.code) == (409, "task_mismatch")
        assert_untouched(web, mine, yours)

    def test_a_forwarded_address_that_is_none(self, web):
        task_id = web.database.add_task()

        answer = web.post(task_id, completed(task_id), headers={"X-Forwarded-For": "9" * 4_000})

        assert (answer.status, answer.outcome) == (200, "processed")


def now():
    return int(time.time())


class TestSignatures:
    def sign(self, scheme, body, *, secret=SECRET, message_id="msg_1", timestamp=None):
        timestamp = now() if timestamp is None else timestamp
        match scheme:
            case "contenthub":
                return {"X-Webhook-Signature": sign_contenthub(body, secret)}
            case "github":
                return {"X-Hub-Signature-256": sign_github(body, secret)}
            case "standard" | "svix":
                prefix = "webhook" if scheme == "standard" else "svix"
                return {
                    f"{prefix}-id": message_id,
                    f"{prefix}-timestamp": str(timestamp),
                    f"{prefix}-signature": sign_standard(body, secret, message_id, timestamp),
                }
        raise AssertionError(scheme)

    def assert_refused(self, signed, headers, *, query="", status=401, code="signature_invalid"):
        task_id = signed.database.add_task()

        answer = signed.post(task_id, completed(task_id), headers=headers, query=query)

        assert (answer.status, answer.code) == (status, code)
        assert SECRET.encode() not in answer.body
        assert_untouched(signed, task_id)

    def test_missing(self, signed):
        self.assert_refused(signed, {}, status=403, code="signature_missing")

    @pytest.mark.parametrize("scheme", ["contenthub", "github", "standard", "svix"])
    def test_right(self, signed, scheme):
        task_id = signed.database.add_task()
        body = completed(task_id, "你好 🎉")

        assert signed.post(task_id, body, headers=self.sign(scheme, body)).outcome == "processed"

    @pytest.mark.parametrize("scheme", ["contenthub", "github", "standard", "svix"])
    def test_of_another_body_or_another_secret(self, signed, scheme):
        self.assert_refused(signed, self.sign(scheme, b"another body"))
        self.assert_refused(signed, self.sign(scheme, b"{}", secret="another secret"))

    @pytest.mark.parametrize("scheme", ["contenthub", "github", "standard", "svix"])
    def test_of_a_body_for_another_task(self, signed, scheme):
        mine, yours = signed.database.add_tasks(2)
        body = completed(mine)

        answer = signed.post(yours, body, headers=self.sign(scheme, body))

        assert (answer.status, answer.code) == (409, "task_mismatch")
        assert_untouched(signed, mine, yours)

    @pytest.mark.parametrize(
        "value",
        ["", " ", "wrong", "sha256=", "sha256=sha256=", "sha256=" + "0" * 64, "0" * 64, "A" * 43 + "=", "a" * 8_000,
         b"\xff\xfe", "签名".encode(), b"\xe9" * 64, "sha1=" + "0" * 40, "v1," + "A" * 43 + "=", ",", "==", "null"],
        ids=lambda value: ascii(value[:16]),
    )  # fmt: skip
    @pytest.mark.parametrize("header", ["X-Webhook-Signature", "X-Hub-Signature-256", "webhook-signature"])
    def test_wrong(self, signed, header, value):
        rest = {"webhook-id": "msg", "webhook-timestamp": str(now())} if header == "webhook-signature" else {}

        self.assert_refused(signed, {header: value, **rest})

    @pytest.mark.parametrize("header", ["X-Webhook-Signature", "X-Hub-Signature-256", "webhook-signature"])
    def test_of_ten_thousand_characters(self, signed, header):
        task_id = signed.database.add_task()

        answer = signed.post(task_id, completed(task_id), headers={header: "a" * 10_000})

        assert answer.status in {401} | OWN_REFUSALS_OF_GUNICORN
        assert_untouched(signed, task_id)

    def test_with_the_prefix_and_in_hexadecimal(self, signed):
        for make in (
            lambda body: "sha256=" + sign_contenthub(body, SECRET),
            lambda body: sign_github(body, SECRET),
            lambda body: sign_github(body, SECRET).removeprefix("sha256=").upper(),
        ):
            task_id = signed.database.add_task()
            body = completed(task_id)
            assert signed.post(task_id, body, headers={"X-Webhook-Signature": make(body)}).outcome == "processed"

    @pytest.mark.parametrize("token", ["", "wrong", "%00", "%ff", "%F0%9F%8E%89", "A" * 43, "a" * 3_000, "%zz"])
    def test_a_token_that_is_wrong(self, signed, token):
        self.assert_refused(signed, {}, query=f"token={token}")

    def test_a_token_of_another_attempt(self, signed):
        task_id = signed.database.add_task()
        token = sign_url(SECRET, task_id, 1)

        for query in (f"attempt=2&token={token}", f"token={token}", f"attempt=01&token={token}"):
            answer = signed.post(task_id, failed(task_id), query=query)
            assert (answer.status, answer.code) == (401, "signature_invalid")
        assert signed.post(task_id, failed(task_id), query=f"attempt=1&token={token}").outcome == "processed"

    @pytest.mark.parametrize("offset", [-301 - 5, 301 + 5, -(10**8), 10**10])
    def test_a_timestamp_far_off(self, signed, offset):
        task_id = signed.database.add_task()
        body = completed(task_id)

        timestamp = max(0, now() + offset)
        answer = signed.post(task_id, body, headers=self.sign("standard", body, timestamp=timestamp))

        assert (answer.status, answer.code) == (401, "signature_expired")
        assert_untouched(signed, task_id)

    @pytest.mark.parametrize("offset", [-290, 290])
    def test_a_timestamp_a_little_off(self, signed, offset):
        task_id = signed.database.add_task()
        body = completed(task_id)

        headers = self.sign("standard", body, timestamp=now() + offset)
        assert signed.post(task_id, body, headers=headers).outcome == "processed"

    @pytest.mark.parametrize(
        "timestamp",
        ["", "-1", "abc", "1e9", "1.5", "+1", " 1", "0x1", "NaN", "inf", "9" * 12, "9" * 13, "9" * 5_000, b"\xff",
         "１２３".encode(), "1_000", "2026-01-01T00:00:00Z"],
        ids=lambda value: ascii(value[:16]),
    )  # fmt: skip
    def test_a_timestamp_that_is_no_number_of_ours(self, signed, timestamp):
        task_id = signed.database.add_task()
        headers = self.sign("standard", completed(task_id)) | {"webhook-timestamp": timestamp}

        answer = signed.post(task_id, completed(task_id), headers=headers)

        assert answer.status == 401
        assert_untouched(signed, task_id)

    @pytest.mark.parametrize("message_id", [None, "", "x" * 256, "x" * 8_000, b"\xff", "签名".encode()])
    def test_an_id_that_is_none(self, signed, message_id):
        task_id = signed.database.add_task()
        headers = self.sign("standard", completed(task_id)) | {"webhook-id": message_id}

        answer = signed.post(task_id, completed(task_id), headers=headers)

        assert (answer.status, answer.code) == (401, "signature_invalid")

    @pytest.mark.parametrize("make_body", [completed, failed])
    def test_a_replayed_id_is_a_duplicate(self, signed, make_body):
        """The id stays on every retry, the timestamp and the signature do not, and here not even the body."""
        task_id = signed.database.add_task()
        outcomes = []
        for age, detail in ((10, 1), (10, 1), (0, 1), (0, 2)):
            body = make_body(task_id, metadata={"try": detail})
            headers = self.sign("standard", body, message_id="msg_replayed", timestamp=now() - age)
            answer = signed.post(task_id, body, headers=headers)
            assert answer.status == 200
            outcomes.append(answer.outcome)

        assert outcomes == ["processed", "duplicate", "duplicate", "duplicate"]
        assert sum(signed.database.contents(task_id).values()) + sum(signed.database.failures(task_id).values()) == 1

    def test_a_stranger_learns_nothing_of_tasks_or_events(self, signed):
        known = signed.database.add_task()
        bodies = [completed(known), b"not json", b"{}", b'{"event":"exploded","taskId":"x"}', b""]
        answers = [signed.post(path, body) for path in (known, "unknown", "a%00b", "x" * 3_000) for body in bodies]

        assert {(answer.status, answer.code) for answer in answers} == {(403, "signature_missing")}
        assert len({answer.body for answer in answers}) == 1


class TestMemory:
    """The largest bodies that are let in, each to workers that have done nothing else."""

    @staticmethod
    def assert_modest(web, most=MOST_MEMORY):
        peak = max(web.peak_memory().values())
        figure(f"peak {peak / MIB:.0f} MiB")
        assert peak < most

    @pytest.mark.parametrize(
        "content",
        ["a" * 15 * MIB, "字" * 5 * MIB, "a" * 15 * MIB + "🎉", '"' * 7 * MIB],
        ids=["ascii", "chinese", "one emoji", "escaped quotes"],
    )
    def test_an_article_of_15_mib_is_taken(self, database_url, tmp_path, content):
        with serve(database_url, tmp_path, workers=1) as web:
            task_id = web.database.add_task()

            answer = web.send(post(callback(task_id), completed(task_id, content)))

            assert (answer.status, answer.outcome) == (200, "processed")
            assert web.database.contents(task_id) == {task_id: 1}
            assert web.database.task(task_id).result["content"] == content
            # One emoji makes Python keep four bytes for each character of the text, 60 MiB a copy.
            self.assert_modest(web, 256 * MIB if "🎉" in content else MOST_MEMORY)

    @pytest.mark.parametrize(
        ("item", "count"),
        [
            ("[]", 5_000_000),
            ("{}", 5_000_000),
            ("0", 8_000_000),
            # As many as are allowed, or nearly so.
            ("[]", 249_000),
            ('{"b":1}', 249_000),
            ("1.5", 499_000),
            ('"aaaaaaaaaaaaaaaaaaaaaaa🎉"', 499_000),
        ],
    )
    def test_a_bomb_of_many_values_is_refused(self, sqlite_url, tmp_path, item, count):
        body = b'{"a":[%b]}' % b",".join([item.encode()] * count)
        assert len(body) <= 16 * MIB
        with serve(sqlite_url, tmp_path, workers=1) as web:
            answer = web.post(web.database.add_task(), body)

            assert answer.status == 400
            assert answer.seconds < 5
            self.assert_modest(web)

    @pytest.mark.parametrize("content", ["a" * 15 * MIB + "🎉", "字" * 5 * MIB], ids=["one emoji", "chinese"])
    def test_a_stranger_with_a_wrong_signature_costs_no_more(self, sqlite_url, tmp_path, content):
        with serve(sqlite_url, tmp_path, workers=1, env={"WEBHOOK_SECRET_KEY": SECRET}) as web:
            task_id = web.database.add_task()

            answer = web.post(task_id, completed(task_id, content), headers={"X-Webhook-Signature": "0" * 64})

            assert (answer.status, answer.code) == (401, "signature_invalid")
            assert answer.seconds < 5
            self.assert_modest(web)

    def test_50_mb_are_not_kept(self, sqlite_url, tmp_path):
        with serve(sqlite_url, tmp_path, workers=1) as web:
            task_id = web.database.add_task()
            web.send(pieces_of(post(callback(task_id), b"", {"Content-Length": str(50 * MIB)}), 50 * MIB))
            web.send([post(callback(task_id), b"", CHUNKED), chunks(*[b" " * MIB] * 50)])

            self.assert_modest(web)


class TestOtherServers:
    """Servers whose stream does not end where the request does: a refusal must not wait for more of it."""

    @pytest.fixture(
        params=[werkzeug.serving.make_server, wsgiref.simple_server.make_server], ids=["flask run", "wsgiref"]
    )
    def port(self, request, sqlite_url):
        app = create_app(DATABASE_URL=sqlite_url, TESTING=True)
        with app.app_context():
            db.create_all()
            db.engine.dispose()
        server = request.param("127.0.0.1", 0, app)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()
        server.server_close()

    @pytest.mark.parametrize(
        ("body", "status"), [(b"not json", 400), (b"{}", 400), (completed("nobody"), 404), (b" " * 17 * MIB, 413)]
    )
    def test_a_refusal_is_answered_at_once(self, port, body, status):
        answer = send(port, post(callback("nobody"), body), timeout=5)

        assert answer.status == status


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
    for server, sign in ((web, None), (signed, sign_github)):
        task_id = server.database.add_task()
        body = completed(task_id)
        headers = {} if sign is None else {"X-Hub-Signature-256": sign(body, SECRET)}

        assert server.post(task_id, body, headers=headers).outcome == "processed"
        peak = max(server.peak_memory().values())
        figure(f"peak at the end: {peak / MIB:.0f} MiB")
        assert peak < MOST_MEMORY
        assert "Traceback" not in server.gunicorn.log
