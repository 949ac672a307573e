"""What the handlers fail at, grouped and acknowledged, and the banner that leads there from every page."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.operations.alerts import check_alerts
from tests.support.host import completed
from tests.support.pages import AT, Visitor, mount, parsed


def fail(host, count=1, error=None):
    """Deliveries that the publisher fails at, or another handler with an error of its own."""

    def refuse(app, **extra):
        if error is not None:
            raise error

    host.publisher.broken = error is None
    host.connect(task_completed, refuse)
    for _ in range(count):
        task_id = host.add_task()
        host.post(task_id, completed(task_id))
    host.publisher.broken = False
    task_completed.disconnect(refuse, sender=host.app)


def test_they_are_grouped_by_handler_and_exception(visitor):
    host = visitor.host
    since = f"{host.clock():%Y-%m-%d %H:%M:%S}"
    fail(host, 3)
    host.clock.advance(60)
    fail(host, 2)
    fail(host, 1, LookupError("no account 1: closed"))
    fail(host, 1, LookupError("no account 2: closed"))

    page = visitor.see("/failures")

    assert "All 7 deliveries that failed or are dead." in page.text
    assert f"5 times BrokenHandler in Publisher, since {since}" in page.text
    assert "2 times LookupError in refuse" in page.text
    assert "LookupError: no account 2: closed" in page.text
    assert page.text.index("LookupError in") < page.text.index("BrokenHandler in")  # the newest first


def test_a_delivery_of_which_no_error_is_kept_is_named_as_such(visitor):
    host = visitor.host
    fail(host)
    with host.app.app_context():
        row = host.db.session.get(host.state.delivery_model, host.deliveries()[0].id)
        row.error, row.failed_tries, row_id = None, None, row.id
        host.db.session.commit()

    page = visitor.see("/failures")

    assert "1 time without an error, since" in page.text
    assert page.html.count("<pre") == 0
    assert "Replay it" not in page.text  # of all that failed
    assert page.link(f"delivery {row_id}") == f"{AT}/deliveries/{row_id}"


def test_a_group_counts_what_waits_and_what_is_parked_and_each_try(visitor):
    host = visitor.host
    fail(host, 2)
    with host.app.app_context():
        model = host.state.delivery_model
        host.db.session.get(model, host.deliveries()[0].id).verdict = "dead"
        host.db.session.commit()

    page = visitor.see("/failures")

    assert "1 waits for another try, 1 is dead: parked for you to replay; 2 tries in all, for 2 tasks." in page.text
    assert len(visitor.see(page.link("List them")).ids) == 2
    assert "2 deliveries would be replayed" in visitor.see(page.link("Replay these 2")).text


def test_a_replay_that_fails_is_another_delivery_of_the_same_task(visitor):
    host = visitor.host
    fail(host, 2)
    host.publisher.broken = True
    visitor.submit(visitor.see(f"/deliveries/{host.deliveries()[0].id}"), "replay")

    page = visitor.see("/failures")

    assert "3 times BrokenHandler" in page.text
    assert "3 tries in all, for 2 tasks." in page.text


def test_what_is_applied_in_the_end_is_no_failure(visitor):
    fail(visitor.host)
    visitor.host.replay(visitor.host.deliveries()[0].id)

    assert "No delivery waits for another try, and none is parked." in visitor.see("/failures").text


def test_a_person_acknowledges_a_group_until_it_fails_again(visitor):
    host = visitor.host
    fail(host, 2)
    host.clock.advance(60)
    answer = visitor.submit(visitor.see("/failures"), "failures")
    known = visitor.see(answer.location)

    assert answer.status_code == 303
    assert "Acknowledged by somebody at 127.0.0.1 at" in known.text
    assert not [form for form in known.forms if form.action.endswith("/failures")]

    host.clock.advance(60)
    fail(host)
    again = visitor.see("/failures")
    assert "It failed again after somebody at 127.0.0.1 had acknowledged it" in again.text

    host.clock.advance(60)
    visitor.submit(again, "failures")
    assert "none has come since" in visitor.see("/failures").text


def test_it_takes_a_form_of_ours_to_acknowledge(sqlite_visitor):
    fail(sqlite_visitor.host)

    assert sqlite_visitor.client.post(f"{AT}/failures", data={"failure": "x"}).status_code == 403
    page = sqlite_visitor.see("/failures")
    for failure in ("", "publish: RuntimeError", "0" * 41):
        assert sqlite_visitor.submit(page, "failures", fields={"failure": failure}).status_code == 400


def test_an_error_with_a_secret_in_it_is_acknowledged_without_showing_it(sqlite_visitor):
    """Of a creator of the host's own, say, whose words nobody has looked through."""
    host = sqlite_visitor.host
    fail(host)
    with host.app.app_context():
        said = "GET https://service.example/jobs?api_key=sk-live-0123456789 failed."
        host.db.session.execute(sa.update(host.state.delivery_model).values(error=said, failed_tries=None))
        host.db.session.commit()

    page = sqlite_visitor.see("/failures")

    assert "GET https://service.example/jobs?api_key=" in page.text
    assert "sk-live-0123456789" not in page.html
    assert "Acknowledged by" in sqlite_visitor.see(sqlite_visitor.submit(page, "failures").location).text


def test_a_fixed_number_of_statements_reads_a_bounded_number_of_rows(visitor, monkeypatch):
    monkeypatch.setattr("flask_contenthub_webhook.contrib.dashboard.failures._MOST_ROWS", 3)
    fail(visitor.host, 5)

    with visitor.host.statements() as statements:
        page = visitor.see("/failures")

    assert "The newest 3 deliveries that failed or are dead; there are more." in page.text
    assert len([statement for statement in statements if not statement.startswith(("COMMIT", "SET "))]) <= 7


@pytest.mark.parametrize(
    "path", ["/", "/deliveries", "/deliveries/1", "/failures", "/forwards", "/replay", "/task?id=no"]
)
def test_a_raised_alert_stands_on_every_page_with_its_whole_story(sqlite_visitor, path):
    host = sqlite_visitor.host
    fail(host, 24)
    raised = host.clock()
    check_alerts(host.state)
    host.clock.advance(10)

    page = parsed(sqlite_visitor.get(path).text)

    at = f"{raised:%Y-%m-%d %H:%M:%S}"
    assert "The handlers failed at 100.0% of 24 events within 5 min (limit: 10.0%)." in page.text
    assert f"Alert failure_rate: raised at {at}, last seen above the limit at {at}, checked 10.0 s ago." in page.text
    assert page.link("See what failed, and why") == f"{AT}/failures"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("failure_rate", "/failures"),
        ("silence", "/tasks?show=open"),
        ("signature_failures", "/deliveries?verdict=rejected"),
    ],
)
def test_each_banner_leads_to_what_its_alert_is_about(sqlite_visitor, name, target):
    host = sqlite_visitor.host
    with host.app.app_context():
        host.db.session.add(host.state.models.alert(name=name, raised=True, changed_at=host.clock()))
        host.db.session.commit()

    link = sqlite_visitor.see("/forwards").link("See ")

    assert link == AT + target
    assert sqlite_visitor.get(link).status_code == 200


def test_a_check_below_the_limit_is_told_apart_from_one_above_it(sqlite_visitor):
    host, model = sqlite_visitor.host, sqlite_visitor.host.state.models.alert
    above, now = host.clock() - timedelta(minutes=2), host.clock()
    with host.app.app_context():
        raised = {"value": 0.173, "sample": 52, "changed_at": above, "checked_at": above}
        host.db.session.add(model(name="failure_rate", raised=True, **raised))
        host.db.session.add(model(name="job:alerts", checked_at=now - timedelta(seconds=10)))
        host.db.session.commit()

    page = sqlite_visitor.see("/")

    assert f"last seen above the limit at {above:%Y-%m-%d %H:%M:%S}, checked 10.0 s ago." in page.text


def test_the_host_names_who_does_what(hosts, sqlite_url):
    visitor = Visitor(hosts(sqlite_url, after=mount(who=lambda: "Ada Lovelace")))
    fail(visitor.host, 2)
    delivery_id = visitor.host.deliveries()[0].id
    replay = visitor.submit(visitor.see(f"/deliveries/{delivery_id}"), "replay")
    visitor.submit(visitor.see("/failures"), "failures")

    assert "by Ada Lovelace" in visitor.see(replay.location).text
    assert "Acknowledged by Ada Lovelace" in visitor.see("/failures").text


def test_whom_the_server_knows_counts_more_than_what_a_header_says(sqlite_visitor):
    fail(sqlite_visitor.host)
    known = {"environ_overrides": {"REMOTE_USER": "Ada"}, "auth": ("Mallory", "")}

    answer = sqlite_visitor.submit(sqlite_visitor.see("/failures"), "failures", **known)

    assert "Acknowledged by Ada at" in sqlite_visitor.see(answer.location).text


def test_a_page_shows_every_try_and_the_answer(sqlite_visitor):
    visitor, host = sqlite_visitor, sqlite_visitor.host
    fail(host)
    delivery_id = host.deliveries()[0].id
    host.publisher.broken = True
    host.clock.advance(1000)
    host.retry()
    failing = visitor.see(f"/deliveries/{delivery_id}")
    host.publisher.broken = False
    host.clock.advance(1000)
    host.retry()
    done = visitor.see(f"/deliveries/{delivery_id}")

    assert "Response500 handler_failed" in failing.text
    assert failing.text.count("Publisher: BrokenHandler: the publisher is broken") == 2
    assert "Traceback of try 2" in failing.text
    assert failing.html.count("<details open>") == 1
    assert done.found(r"3 ?20\d\d-\d\d-\d\d \d\d:\d\d:\d\d ?processed")
    assert "Response500 handler_failed" in done.text
    assert "<details open>" not in done.html
