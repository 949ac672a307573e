"""Bulk replay by filter: a dry run that counts, an order that says exactly what was counted, chunks, outcomes."""

from __future__ import annotations

import pytest

from tests.support.host import completed, progress
from tests.support.long_history import write_history
from tests.support.pages import AT, Visitor, parsed

BULK = "flask_contenthub_webhook.contrib.dashboard.bulk"
SEARCH = "flask_contenthub_webhook.contrib.dashboard.search"


@pytest.fixture
def broken(visitor):
    """Five tasks whose completion the handlers failed at."""
    host = visitor.host
    task_ids = [host.add_task() for _ in range(5)]
    host.publisher.broken = True
    for task_id in task_ids:
        host.post(task_id, completed(task_id))
    host.publisher.broken = False
    return task_ids


def replay_all(visitor, page):
    """Order what a dry run counted, and go on until it is finished; the pages that say what was done."""
    pages = []
    while [form for form in page.forms if form.method == "post"]:
        answer = visitor.submit(page, f"{AT}/replay")
        assert answer.status_code == 200
        page = parsed(answer.text)
        pages.append(page)
    return pages


def test_a_dry_run_of_one_asks_about_one(visitor, broken):
    page = visitor.see(f"/replay?task={broken[0]}")

    assert "1 delivery would be replayed." in page.text
    assert "Yes, replay this one." in page.text


def test_a_dry_run_counts_and_changes_nothing(visitor, broken):
    page = visitor.see("/replay?verdict=failed")

    assert "5 deliveries would be replayed. Nothing was done yet." in page.text
    assert len(page.ids) == 5
    assert visitor.host.contents() == []
    assert {row.verdict for row in visitor.host.deliveries()} == {"failed"}


def test_without_a_filter_nothing_is_counted(visitor, broken):
    page = visitor.see("/replay")

    assert "Without a filter nothing is counted." in page.text
    assert not [form for form in page.forms if form.method == "post"]


def test_the_order_replays_each_once_and_shows_the_outcomes(visitor, broken):
    pages = replay_all(visitor, visitor.see("/replay?verdict=failed"))

    assert len(pages) == 1
    assert "5 applied: 5 of 5 done. Finished." in pages[0].text
    assert pages[0].found(r"processed ?5")
    assert [len(visitor.host.contents(task_id)) for task_id in broken] == [1] * 5
    assert "0 deliveries would be replayed" in visitor.see("/replay?verdict=failed").text


def test_it_is_done_in_chunks_that_go_on_where_the_last_one_ended(visitor, broken, monkeypatch):
    monkeypatch.setattr(f"{BULK}._MOST_AT_ONCE", 2)

    pages = replay_all(visitor, visitor.see("/replay?event=completed"))

    assert [page.found(r"\d applied: \d of \d done") for page in pages] == [
        "2 applied: 2 of 5 done",
        "4 applied: 4 of 5 done",
        "5 applied: 5 of 5 done",
    ]
    assert [len(visitor.host.contents(task_id)) for task_id in broken] == [1] * 5


def test_a_chunk_ends_with_its_time(visitor, broken, monkeypatch):
    monkeypatch.setattr(f"{BULK}._SECONDS", -1)

    pages = replay_all(visitor, visitor.see("/replay?verdict=failed"))

    assert [page.found(r"\d of \d") for page in pages][:5] == [f"{n} of 5" for n in range(1, 6)]


def test_replays_that_match_the_filter_are_not_replayed_in_their_turn(visitor, broken):
    pages = replay_all(visitor, visitor.see("/replay?event=completed"))
    again = replay_all(visitor, visitor.see("/replay?event=completed&source=webhook"))

    assert "5 applied: 5 of 5 done" in pages[-1].text
    assert "0 applied, 5 without effect: 5 of 5 done" in again[-1].text
    assert again[-1].found(r"duplicate ?5")
    assert len(visitor.host.deliveries()) == 15


def test_what_comes_after_the_dry_run_is_left_alone(visitor, broken):
    page = visitor.see("/replay?verdict=failed")
    late = visitor.host.add_task()
    visitor.host.publisher.broken = True
    visitor.host.post(late, completed(late))
    visitor.host.publisher.broken = False

    replay_all(visitor, page)

    assert visitor.host.task(late).status == "submitted"
    assert visitor.host.deliveries(late)[0].verdict == "failed"


def test_failures_are_told_and_stop_nothing(visitor, broken):
    visitor.host.publisher.broken = True

    pages = replay_all(visitor, visitor.see("/replay?verdict=failed"))

    host = visitor.host
    assert "0 applied, 5 failed again: 5 of 5 done. Finished." in pages[0].text
    assert pages[0].found(r"failed again ?5 ?all ?5")
    assert pages[0].text.count("Publisher: BrokenHandler: the publisher is broken") == 5
    for row in host.deliveries():
        assert pages[0].link(f"Delivery {row.id}" if row.replay_of is None else str(row.id)) is not None
    assert {row.replayed_by for row in host.deliveries() if row.replay_of} == {"somebody at 127.0.0.1"}


def test_what_can_no_longer_be_replayed_is_told_apart_from_what_failed_again(visitor):
    write_history(visitor.host, 5)

    pages = replay_all(visitor, visitor.see("/replay?event=completed"))

    assert pages[0].found(r"0 applied, (\d) not replayed: \1 of \1 done")


def test_what_nobody_vouched_for_is_counted_and_left_alone(visitor, broken):
    host = visitor.host
    host.post(broken[0], completed(broken[0]), path=f"/api/v1/content/callback/{broken[0]}?token=wrong")
    host.post(broken[0], progress(broken[0], 1))

    page = visitor.see(f"/replay?task={broken[0]}")

    assert "2 deliveries would be replayed" in page.text
    assert "3 match; 1 of them have no payload with a valid signature." in page.text


def test_more_than_one_request_looks_through_is_counted_in_parts(visitor, monkeypatch):
    monkeypatch.setattr(f"{SEARCH}.MOST_ROWS", 40)
    write_history(visitor.host, 100)

    counts = [
        int(page.found(r"(\d+) deliver(?:y|ies) would be"))
        for page in visitor.walk("/replay?event=completed", "count those after")
    ]

    assert counts == [32, 32, 16]
    assert "This counts 40 rows at most" in visitor.see("/replay?event=completed").text


@pytest.mark.parametrize("query", ["text=n3%22", "task=task-0000000001&verdict=processed", "range=day&source=webhook"])
def test_the_order_means_exactly_what_was_counted(visitor, query):
    write_history(visitor.host, 60)
    page = visitor.see(f"/replay?{query}")
    counted = int(page.found(r"(\d+) deliver(?:y|ies) would be"))

    pages = replay_all(visitor, page)

    assert f"{counted} of {counted} done. Finished." in pages[-1].text
    assert counted > 0


def test_an_order_cannot_be_changed_or_used_by_another_browser(visitor, broken):
    page = visitor.see("/replay?verdict=failed")
    other = Visitor(visitor.host)
    theirs = other.see("/replay?verdict=failed")
    order = next(form for form in theirs.forms if form.method == "post").fields["order"]

    for wrong in ("", "x", order, f"{order}x"):
        answer = visitor.submit(page, f"{AT}/replay", fields={"order": wrong})
        assert answer.status_code == 400
        assert "Count again" in answer.text
    assert visitor.host.contents() == []


def test_a_list_leads_to_the_replay_of_what_it_shows(visitor, broken):
    target = visitor.see("/deliveries?verdict=failed&range=day").link("Replay these")

    assert "5 deliveries would be replayed" in visitor.see(target).text


def test_counting_and_each_chunk_take_a_bounded_number_of_statements(visitor, broken):
    with visitor.host.statements() as statements:
        visitor.see("/replay?verdict=failed&range=day")

    assert len([statement for statement in statements if statement != "COMMIT"]) <= 7
