"""Wrong lengths, large bodies, and the memory that they cost."""

from __future__ import annotations

import threading
import wsgiref.simple_server

import pytest
import werkzeug.serving

from tests.support.adversarial_http import MIB, MOST_MEMORY, SECRET, assert_untouched, assert_works_as_before, event
from tests.support.raw_http import callback, chunks, completed, pieces_of, post, send
from tests.support.web_host import create_app, db
from tests.support.web_server import figure, serve

CHUNKED = {"Content-Length": None, "Transfer-Encoding": "chunked"}


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
            idle = max(web.peak_memory().values())  # it depends on the versions of the libraries

            answer = web.send(post(callback(task_id), completed(task_id, content)))

            assert (answer.status, answer.outcome) == (200, "processed")
            assert web.database.contents(task_id) == {task_id: 1}
            assert web.database.task(task_id).result["content"] == content
            # One emoji makes Python keep four bytes for each character of the text, 60 MiB a copy; the JSON is one.
            # PyMySQL writes the values into the text of the statement, which is a few copies more.
            text = (60 if "🎉" in content else 30) * MIB
            copies = 3 * text if database_url.startswith("mysql") else 0
            self.assert_modest(web, idle + (226 if "🎉" in content else 144) * MIB + copies)

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


def test_after_all_of_this_the_server_works_as_before(web):
    assert_works_as_before(web)
