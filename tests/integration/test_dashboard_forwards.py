"""One forward with its request, its tries and the receiver's answers; resending one and many."""

from __future__ import annotations

import sqlite3

from flask_contenthub_webhook.contrib.dashboard import resend
from flask_contenthub_webhook.forwarding.post import Answer
from flask_contenthub_webhook.forwarding.send import send_due_forwards
from tests.integration.test_dashboard_details import add_forwards
from tests.support.host import completed
from tests.support.pages import AT, Visitor, open_to_all, parsed
from tests.support.processes import wait_until
from tests.support.receiver import Receiver, Reply

FORWARD_SECRET = "whsec_Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw=="


def echo(request, _number):
    """A receiver that refuses, and repeats what proves the sender."""
    return Reply(
        502, {"X-Echo": request.header("webhook-signature") or "", "Set-Cookie": "session=geheim", "X-Node": "r7"}
    )


def test_the_request_and_the_answer_of_every_try_are_shown(hosts, sqlite_url):
    with Receiver(echo) as receiver:
        visitor = Visitor(
            hosts(
                sqlite_url,
                after=open_to_all,
                WEBHOOK_FORWARD_URLS=receiver.url("/hook?token=geheim"),
                WEBHOOK_FORWARD_SECRET=FORWARD_SECRET,
                WEBHOOK_FORWARD_ALLOWED_NETWORKS="127.0.0.0/8",
            )
        )
        host = visitor.host
        task_id = host.add_task()
        host.post(task_id, completed(task_id))
        send_due_forwards(host.state)
        receiver.wait_for(1)
        wait_until(lambda: "Try 1" in visitor.see("/forwards/1").text, timeout=30, what="a try", log=str)
        signature = receiver.requests[0].header("webhook-signature")

    page = visitor.see("/forwards/1")

    for words in ("webhook-signature[redacted]", "webhook-timestamp", "Content-Typeapplication/json", "token=***"):
        assert words in page.text, words
    assert "The receiver answered 502" in page.text
    assert "X-Noder7" in page.text
    assert "Set-Cookie[redacted]" in page.text
    assert signature is not None
    for secret in ("geheim", signature, signature.split(",")[1]):
        assert secret not in page.html
    assert '"wordCount": 3' in page.text
    assert visitor.see(f"/deliveries/{host.deliveries()[0].id}").link("Forward 1") == f"{AT}/forwards/1"


def test_one_is_sent_again_and_who_asked_is_shown(visitor):
    add_forwards(visitor.host, 7, "t", 3)
    dead = visitor.see("/forwards/3")

    answer = visitor.submit(dead, "resend")
    page = visitor.see(answer.location)

    assert answer.status_code == 303
    assert "Sent again" in page.text
    assert "by somebody at 127.0.0.1" in page.text
    assert "It waits for its next try, and is sent by itself." in page.text
    refused = visitor.submit(dead, "resend")
    assert refused.status_code == 303
    assert "Forward 3 is not finished; it is tried again by itself." in visitor.see(refused.location).text


def test_tries_of_which_nothing_is_kept_are_not_called_none(visitor):
    host = visitor.host
    add_forwards(host, 7, "t", 2)
    with host.app.app_context():
        host.db.session.execute(host.db.delete(host.state.models.forward_attempt))
        host.db.session.get(host.state.models.forward, 1).tries = 0
        host.db.session.commit()

    assert "Not tried yet." in visitor.see("/forwards/1").text
    assert "Nothing is kept of its tries." in visitor.see("/forwards/2").text


def test_many_are_counted_and_sent_again_in_chunks(visitor, monkeypatch):
    monkeypatch.setattr(resend, "_MOST_AT_ONCE", 4)
    add_forwards(visitor.host, 7, "t", 18)
    listed = visitor.see("/forwards?status=dead")
    counted = visitor.see(listed.link("Resend the dead ones"))
    assert "6 dead forwards would be sent again. Nothing was done yet." in counted.text

    first = parsed(visitor.submit(counted, "resend").text)
    last = parsed(visitor.submit(first, "resend").text)

    assert "4 of 6 are to be sent again." in first.text
    assert "6 of 6 are to be sent again. Finished." in last.text
    assert "0 dead forwards" in visitor.see("/forwards/resend?status=dead").text
    assert not visitor.see("/forwards").link("Resend the dead ones"), "there are none"
    assert visitor.see("/forwards?status=waiting").html.count('data-label="Forward"') == 12


def test_a_database_that_goes_away_between_two_chunks_is_said(sqlite_visitor):
    host = sqlite_visitor.host
    add_forwards(host, 7, "t", 18)
    counted = sqlite_visitor.see("/forwards/resend?status=dead")
    writer = sqlite3.connect(host.engine.url.database or "", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    answer = sqlite_visitor.submit(counted, "resend")
    writer.close()

    assert answer.status_code == 503
    assert "The database did not answer" in answer.text
    assert "6 of 6 are to be sent again. Finished." in parsed(sqlite_visitor.submit(counted, "resend").text).text


def test_only_those_of_one_url_are_sent_again(visitor):
    add_forwards(visitor.host, 7, "t", 18)
    of_one = visitor.see(visitor.see("/forwards?status=dead").link("r1.example"))
    counted = visitor.see(of_one.link("Resend the dead ones"))
    assert "2 dead forwards to this URL would be sent again" in counted.text

    visitor.submit(counted, "resend")

    assert "4 dead forwards would" in visitor.see("/forwards/resend").text


def test_what_cannot_be_sent_again_is_refused(sqlite_visitor):
    assert sqlite_visitor.get("/forwards/5").status_code == 404
    assert sqlite_visitor.get("/forwards/resend?status=waiting").status_code == 400
    assert sqlite_visitor.get("/forwards/resend?like=5").status_code == 404
    assert sqlite_visitor.client.post(f"{AT}/forwards/resend").status_code == 403
    assert sqlite_visitor.client.post(f"{AT}/forwards/1/resend").status_code == 403


def test_a_page_of_a_forward_takes_a_fixed_number_of_statements(visitor):
    add_forwards(visitor.host, 7, "t", 3)

    with visitor.host.statements() as statements:
        visitor.see("/forwards/1")

    assert len([statement for statement in statements if not statement.startswith(("COMMIT", "SET "))]) == 3


def test_an_answer_holds_no_secret_in_its_repr():
    assert "geheim" not in repr(Answer(status=200, headers={"x": "geheim"}, sent={"x": "geheim"}, body="geheim"))
