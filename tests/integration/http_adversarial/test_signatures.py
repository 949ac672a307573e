"""Missing, wrong, expired and replayed signatures."""

from __future__ import annotations

import time

import pytest

from flask_contenthub_webhook.core.signatures import sign_contenthub, sign_github, sign_standard, sign_url
from tests.support.adversarial_http import OWN_REFUSALS_OF_GUNICORN, SECRET, assert_untouched, assert_works_as_before
from tests.support.raw_http import completed, failed


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


def test_after_all_of_this_the_server_works_as_before(signed):
    assert_works_as_before(signed, sign_github)
