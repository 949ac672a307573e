"""One delivery, one task, and what was sent on; all of it may come from somebody hostile."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import timedelta
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.storage.drivers import MYSQL
from tests.support.host import completed, failed, progress
from tests.support.pages import AT

EVIL = (
    """<script>alert(1)</script>"><img src=x onerror=alert(1)>{{7*7}}{% raw %}' --> ]]> """
    "\u202e\u2066\x1b[2J\x7f\u200b&amp;"
)
SHOWN = (
    """<script>alert(1)</script>"><img src=x onerror=alert(1)>{{7*7}}{% raw %}' --> ]]> """
    "⟨U+202E⟩⟨U+2066⟩␛[2J␡⟨U+200B⟩&amp;"
)
TASK_FIELDS = ("topic", "requirements", "target_audience", "tone", "error_message")


def write(host, **values):
    """A delivery with these columns; its id."""
    model = host.state.delivery_model
    row = {"source": "webhook", "verdict": "processed", "received_at": host.clock(), **values}
    with host.app.app_context():
        delivery = model(**row)
        host.db.session.add(delivery)
        host.db.session.commit()
        return delivery.id


def post(host, task_id, event, **options):
    """Send an event, and say under which number it is kept."""
    host.post(task_id, event, **options)
    return host.deliveries()[-1].id


class TestDelivery:
    def test_everything_about_it_is_shown(self, visitor):
        host = visitor.host
        task_id = host.add_task(topic="Tea")
        delivery_id = post(
            host, task_id, completed(task_id), attempt=1, headers={"User-Agent": "creator/1", "X-Api-Key": "geheim"}
        )

        page = visitor.see(f"/deliveries/{delivery_id}")

        for words in ("submitted → completed", "Tea", "completed", "processed", "127.0.0.1", "creator/1"):
            assert words in page.text, words
        assert "Signatureurl ?token= in the callback URL" in page.text
        assert '"wordCount": 3,' in page.text
        assert "X-Api-Key[redacted]" in page.text
        assert "geheim" not in page.html
        assert host.token(task_id, 1) not in page.html
        assert page.link(task_id) == f"{AT}/task?id={task_id}"

    def test_a_failed_one_says_why_and_when_it_is_tried_again(self, visitor):
        host, task_id = visitor.host, visitor.host.add_task()
        host.publisher.broken = True
        delivery_id = post(host, task_id, completed(task_id))
        due = host.delivery(delivery_id).next_retry_at

        page = visitor.see(f"/deliveries/{delivery_id}")

        assert "BrokenHandler: the publisher is broken" in page.text
        assert page.found("Attempts ?(1 try of your handlers, the next one [-0-9: ]+) in [0-9]+ s").endswith(
            f"{due:%Y-%m-%d %H:%M:%S}"
        )

    def test_one_that_stands_for_many_refusals_says_so_and_cannot_be_replayed(self, visitor):
        delivery_id = write(visitor.host, verdict="rejected", error="signature_invalid", occurrences=1234, body=b"x")

        page = visitor.see(f"/deliveries/{delivery_id}")

        assert "1,234 refused requests" in page.text
        assert not [form for form in page.forms if form.method == "post"]
        assert visitor.see("/deliveries").ids == [delivery_id]

    def test_it_is_replayed_and_both_are_linked(self, visitor):
        host, task_id = visitor.host, visitor.host.add_task()
        host.publisher.broken = True
        failed_one = post(host, task_id, completed(task_id))
        host.publisher.broken = False

        answer = visitor.submit(visitor.see(f"/deliveries/{failed_one}"), "replay")
        replay = visitor.see(answer.location)
        original = visitor.see(f"/deliveries/{failed_one}")

        assert answer.status_code == 303
        assert f"Delivery {failed_one} was replayed as this one." in replay.text
        assert host.contents(task_id) == ["# 键\n\n正文 🚀"]
        assert original.link(f"delivery {host.deliveries()[-1].id}") is not None
        assert replay.link(f"delivery {failed_one}") == f"{AT}/deliveries/{failed_one}"

    def test_a_replay_that_fails_says_why(self, visitor):
        host, task_id = visitor.host, visitor.host.add_task()
        delivery_id = post(host, task_id, failed(task_id))
        unknown = write(host, task_id="nobody", body=json.dumps(completed("nobody")).encode(), scheme="url")
        broken = write(host, task_id=task_id, body=b"{", scheme="url")
        host.publisher.broken = True
        parked = write(host, task_id=task_id, scheme="url", body=json.dumps(completed(task_id)).encode())
        visitor.see(f"/deliveries/{delivery_id}")

        for number, words in (
            (unknown, "There is no such task."),
            (broken, "holds no valid event"),
            (parked, f"Delivery {parked} was replayed as this one, and failed again: Publisher: BrokenHandler"),
        ):
            answer = visitor.submit(visitor.see(f"/deliveries/{number}"), "replay")
            assert answer.status_code == 303
            assert words in visitor.see(answer.location).text
        assert "no valid event" not in visitor.see(f"/deliveries/{broken}?problem=holds+no+valid+event").text
        page = visitor.see(f"/deliveries/{delivery_id}")
        form = next(form for form in page.forms if form.method == "post")
        assert visitor.client.post(f"{AT}/deliveries/9999/replay", data=form.fields).status_code == 404

    def test_it_takes_a_fixed_number_of_statements(self, visitor):
        host, task_id = visitor.host, visitor.host.add_task()
        delivery_id = post(host, task_id, progress(task_id, 1))
        add_forwards(host, delivery_id, task_id, 5)
        for n in range(30):
            write(host, task_id=task_id, replay_of=delivery_id if n < 5 else None)

        with host.statements() as statements:
            visitor.see(f"/deliveries/{delivery_id}")

        assert len([statement for statement in statements if not statement.startswith(("COMMIT", "SET "))]) == 6

    @pytest.mark.parametrize("number", ["0", "999", "9223372036854775807", "9223372036854775808", "-1", "x"])
    def test_one_that_is_not_there_is_not_found(self, sqlite_visitor, number):
        for path in (f"/deliveries/{number}", f"/deliveries/{number}/body"):
            assert sqlite_visitor.get(path).status_code == 404


class TestHostileDeliveries:
    @pytest.fixture
    def evil_id(self, visitor):
        """A delivery every text of which is hostile."""
        task_id = visitor.host.add_task(**dict.fromkeys(TASK_FIELDS, EVIL))
        return write(
            visitor.host,
            task_id=EVIL,
            event=EVIL[:60],
            scheme="url",
            message_id=EVIL,
            reason=EVIL,
            error=EVIL,
            status_before=EVIL[:16],
            status_after=EVIL[:15],
            remote_addr=EVIL[:60],
            headers={EVIL: EVIL} | ({} if visitor.host.engine.dialect.name in MYSQL else {"X-Half": "\ud800"}),
            body=json.dumps({EVIL: [EVIL, task_id]}, ensure_ascii=False).encode(),
            next_retry_at=visitor.host.clock(),
        )

    def test_nothing_of_it_is_obeyed_on_any_page(self, visitor, evil_id):
        for path in (f"/deliveries/{evil_id}", "/deliveries", f"/task?id={quote(EVIL)}", "/replay?event=x", "/"):
            page = visitor.see(path)
            assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\u200b]", page.html), path
            assert "alert(1)>49" not in page.text, path
            assert not [
                value for _, attributes in page.elements for value in attributes.values() if "<mark" in str(value)
            ]

    def test_all_of_it_can_be_read(self, visitor, evil_id):
        page = visitor.see(f"/deliveries/{evil_id}")

        assert page.text.count(SHOWN) >= 5  # the reason, the message, the name of a header and its value, the task
        assert SHOWN.replace('"', '\\"').replace("␛", "\\u001b") in page.text or "onerror" in page.text
        assert ("⟨U+D800⟩" in page.text) is (visitor.host.engine.dialect.name not in MYSQL)  # they store no half of one

    def test_texts_of_strangers_are_isolated_from_the_words_around_them(self, visitor, evil_id):
        page = visitor.see(f"/deliveries/{evil_id}").html

        assert page.count("<bdi>") == page.count("</bdi>") >= 7
        assert '<pre class="body" dir="ltr"' in page

    def test_the_link_to_its_task_stays_within_the_pages(self, visitor):
        delivery_id = write(visitor.host, task_id="../../admin/delete?all=1#x")

        target = visitor.see(f"/deliveries/{delivery_id}").link("admin")

        assert target == f"{AT}/task?id=../../admin/delete?all%3D1%23x"
        assert visitor.see(target).ids == []

    def test_a_filter_full_of_it_is_only_echoed(self, visitor, evil_id):
        page = visitor.see(f"/deliveries?task={quote(EVIL)}&text={quote(EVIL)}&event={quote(EVIL[:60])}")

        assert page.forms[-1].fields["task"] == EVIL.strip()
        assert page.ids == [evil_id]
        assert visitor.see(f"/deliveries?task={quote(EVIL)}&text={quote(EVIL)}x").ids == []
        assert visitor.see(f"/task?id={quote(EVIL + 'x')}", status=404).text.count("alert(1)") == 2


class TestBodies:
    def test_of_five_megabytes_the_beginning_is_shown_and_the_rest_is_downloaded(self, visitor):
        body = ("<b>键</b> " * 450_000).encode()
        delivery_id = write(visitor.host, task_id="t", body=body)

        page = visitor.get(f"/deliveries/{delivery_id}")
        download = visitor.get(f"/deliveries/{delivery_id}/body")

        assert len(page.data) < 600_000
        assert f"text, {len(body):,} bytes; the beginning is shown." in page.text
        assert f"--data-binary @delivery-{delivery_id}.bin" in page.text
        assert download.data == body
        assert download.mimetype == "application/octet-stream"
        assert download.headers["Content-Disposition"] == f"attachment; filename=delivery-{delivery_id}.bin"
        assert download.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"\xff\xfe\x00", "bytes, 3 bytes."),
            (b"\0\x1b", "␀␛"),
            (b"[" * 100_000, "text, 100,000 bytes; the beginning is shown."),
            (b'{"n": ' + b"9" * 10_000 + b"}", "JSON, 10,007 bytes."),
            (b"", "None."),
            (None, "None."),
        ],
        ids=["bytes", "control", "deep", "number", "empty", "none"],
    )
    def test_others(self, sqlite_visitor, body, shown):
        delivery_id = write(sqlite_visitor.host, body=body)

        assert shown in sqlite_visitor.see(f"/deliveries/{delivery_id}").text
        assert sqlite_visitor.get(f"/deliveries/{delivery_id}/body").status_code == (200 if body else 404)

    @pytest.mark.parametrize(
        "content", ["it's $(touch x) `id`", "键 \u202e\x1b[201~; touch x\n"], ids=["text", "base64"]
    )
    def test_the_command_sends_what_came(self, sqlite_visitor, tmp_path, content):
        """Run by a real shell, with a curl that only writes down what it is told to send."""
        host = sqlite_visitor.host
        task_id = host.add_task()
        body = json.dumps(progress(task_id, 10, note=content), ensure_ascii=False).encode()
        delivery_id = write(host, task_id=task_id, attempt=1, scheme="url", body=body, headers={"X-Say": "it's"})
        page = sqlite_visitor.see(f"/deliveries/{delivery_id}").html
        (command,) = re.findall(r'id="curl-command">(.*?)</code>', page, re.DOTALL)
        script = tmp_path / "curl"
        script.write_text('#!/bin/sh\nfor last; do :; done\n[ "$last" = "@-" ] && cat || printf %s "$last"\n')
        script.chmod(0o755)

        from markupsafe import Markup

        sent = subprocess.run(
            ["bash", "-c", Markup(command).unescape()],
            env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )

        assert sent.stdout == body
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".db"] == ["curl"]


class TestTask:
    def test_its_timeline_has_everything_in_order_with_the_gaps(self, visitor):
        host = visitor.host
        task_id = host.add_task(status="pending", creator_task_id="creators-own", max_retries=2)
        host.post(task_id, progress(task_id, 40), attempt=1)
        host.clock.advance(90)
        host.post(task_id, failed(task_id), attempt=1)
        host.clock.advance(3700)
        host.pass_deadline(task_id)
        host.trigger(task_id, Trigger.TIMED_OUT)
        host.clock.advance(86_400 * 2 + 7200)
        host.post(task_id, completed(task_id), attempt=2)

        page = visitor.see(f"/task?id={task_id}")
        by_creator = visitor.see(f"/task?id={host.task(task_id).creator_task_id}")

        steps = page.text.split("Timeline", 1)[1]
        at = [steps.index(words) for words in ("webhook: progress", "1 min 30 s", "webhook: failed", "1 h 1 min")]
        at += [steps.index(words) for words in ("host: timed_out", "2 d 2 h", "webhook: completed")]
        assert at == sorted(at)
        assert [int(n) for n in re.findall(r"<h3>Attempt (\d)</h3>", page.html)] == [1, 2]
        assert "timeout → completed late" in page.text
        assert page.html.count("step effect") == 4
        assert by_creator.text == page.text

    def test_its_fields_and_due_times_are_shown_and_no_secret(self, visitor):
        host = visitor.host
        now = host.clock()
        task_id = host.add_task(
            status="pending",
            topic="Tea",
            keywords=["green", "black"],
            callback_url="https://hub.example/x?attempt=1&token=ABCDEF",
            creator_options={"api_key": "geheim", "style": "calm"},
            forward_to=[{"url": "https://r.example/?secret=hush", "secret": "hush"}],
            next_submit_at=now - timedelta(seconds=5),
            next_poll_at=now + timedelta(hours=1),
            deadline_at=now + timedelta(hours=2),
            progress={"percentage": 40, "message": "写作中"},
            progress_percentage=40.0,
        )

        page = visitor.see(f"/task?id={task_id}")

        for words in ("Tea", "green, black", "style", "calm", "写作中", "40 %", "token=***", "secret=***"):
            assert words in page.text, words
        assert f"Next submission{now - timedelta(seconds=5):%Y-%m-%d %H:%M:%S} due" in page.text
        assert f"Next question to the creator{now + timedelta(hours=1):%Y-%m-%d %H:%M:%S}" in page.text
        assert not re.search("ABCDEF|geheim|hush", page.html)

    def test_documents_in_any_script_are_shown_as_they_are(self, visitor):
        """MariaDB's ``length`` counts bytes: what is shorter in characters is whole all the same."""
        said = {"style": "沉静", "message": "写作中"}
        task_id = visitor.host.add_task(requirements="Grüner Tee, 茶", creator_options=said, progress=said)

        page = visitor.see(f"/task?id={task_id}")

        assert "the beginning is shown" not in page.text
        assert "text, 13 characters." in page.text
        assert page.text.count('"style": "沉静"') == 2

    def test_a_long_timeline_has_pages(self, visitor):
        for _ in range(60):
            write(visitor.host, task_id="busy")

        first = visitor.see("/task?id=busy")
        second = visitor.see(first.link("Older"))

        assert [page.html.count('class="step') for page in (first, second)] == [50, 10]
        assert visitor.see(second.link("Newer")).html.count('class="step') == 50

    def test_a_huge_result_is_cut(self, visitor):
        host = visitor.host
        task_id = host.add_task()
        host.post(task_id, completed(task_id, "键" * 1_000_000))

        page = visitor.get(f"/task?id={task_id}")

        assert len(page.data) < 600_000
        assert "the beginning is shown" in page.text

    def test_one_that_is_gone_still_has_its_deliveries(self, visitor):
        delivery_id = write(visitor.host, task_id="gone")

        page = visitor.see("/task?id=gone")

        assert "There is no such task here" in page.text
        assert page.link("webhook: refused") == f"{AT}/deliveries/{delivery_id}"
        assert visitor.get("/task?id=nobody").status_code == 404
        assert visitor.get("/task?id=%00").status_code == 404
        assert visitor.get("/task").status_code == 404


def add_forwards(host, delivery_id, task_id, count, **values):
    """Forwards of a delivery, to three URLs in turn and in three states in turn, with two attempts each."""
    forward, attempt = host.state.models.forward, host.state.models.forward_attempt
    with host.app.app_context():
        for number in range(count):
            state = ("waiting", "delivered", "dead")[number % 3]
            row = forward(
                **{
                    "delivery_id": delivery_id,
                    "task_id": task_id,
                    "event": "completed",
                    "url": f"https://r{number // 3 % 3}.example/hook?token=hush",
                    "message_id": f"msg_{number}",
                    "body": b"{}",
                    "status": state,
                    "tries": 2,
                    "next_try_at": host.clock() if state == "waiting" else None,
                    "created_at": host.clock(),
                    **values,
                }
            )
            host.db.session.add(row)
            host.db.session.flush()
            for n in (1, 2):
                tried = {"started_at": host.clock(), "duration_ms": 12.0, "address": "203.0.113.9"}
                host.db.session.add(attempt(forward_id=row.id, number=n, error=f"HTTP 50{n}", **tried))
        host.db.session.commit()


class TestForwards:
    def test_a_delivery_shows_where_it_was_sent_on_with_every_try(self, visitor):
        delivery_id = write(visitor.host, task_id="t")
        add_forwards(visitor.host, delivery_id, "t", 2)

        page = visitor.see(f"/deliveries/{delivery_id}")

        assert "https://r0.example/hook?token=***" in page.text
        assert page.text.count("HTTP 502") == 2
        assert "203.0.113.9" in page.text
        assert "hush" not in page.html

    def test_they_are_listed_by_state_and_by_url(self, visitor):
        add_forwards(visitor.host, 7, "t", 18)

        everything = visitor.see("/forwards")
        dead = visitor.see("/forwards?status=dead")
        of_one = visitor.see(dead.link("r1.example"))

        assert [page.html.count('data-label="Forward"') for page in (everything, dead, of_one)] == [18, 6, 2]
        assert of_one.text.count("https://r1.example") == 3  # in the overview by URL, and in the list twice
        assert "hush" not in everything.html + dead.html + of_one.html
        assert everything.link("7") == f"{AT}/deliveries/7#forwards"

    def test_they_have_pages(self, visitor):
        add_forwards(visitor.host, 7, "t", 60, event=EVIL[:60])

        first = visitor.see("/forwards")
        second = visitor.see(first.link("Older"))

        assert [page.html.count('data-label="Forward"') for page in (first, second)] == [50, 10]
        assert visitor.see(second.link("Newer")).html.count('data-label="Forward"') == 50

    def test_what_cannot_be_looked_for_is_refused(self, sqlite_visitor):
        assert sqlite_visitor.get("/forwards?status=nonsense").status_code == 400
        assert sqlite_visitor.get("/forwards?like=5").status_code == 404
        assert "There is none." in sqlite_visitor.see("/forwards").text


def test_a_delivery_without_anything_is_shown(sqlite_visitor):
    """What another program wrote into the table may lack what we always write."""
    delivery_id = write(sqlite_visitor.host, headers=sa.null())

    assert "Delivery" in sqlite_visitor.see(f"/deliveries/{delivery_id}").text
    assert sqlite_visitor.see("/deliveries").ids == [delivery_id]
