"""An operator finds the way: tasks, tiles and bars, times, payloads, a first visit; by keyboard and on a phone."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest

from flask_contenthub_webhook.contrib.dashboard import counts
from tests.support.host import completed
from tests.support.long_history import write_history

expect = pytest.importorskip("playwright.sync_api").expect

PHONE = {"viewport": {"width": 390, "height": 844}}
TABLET = {"viewport": {"width": 820, "height": 1180}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
both = pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])


def add_task(host, topic="Winter tea", **columns):
    now = host.clock()
    return host.add_task(
        topic=topic, next_poll_at=now + timedelta(minutes=5), deadline_at=now + timedelta(hours=1), **columns
    )


def tab_to(page, locator):
    """Press Tab until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if locator.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"The keyboard does not reach {locator}.")


@both
def test_a_history_that_is_too_long_for_one_page_is_counted_to_its_beginning(opened, host, javascript):
    counts.counts_of(host.app).blocks.clear()
    write_history(host, 45_000, lasting=timedelta(days=6))
    page = opened("/?range=week", java_script_enabled=javascript)
    covers = page.locator(".covers")
    if not javascript:
        expect(covers).to_contain_text("there were more before, within this time")
        page.get_by_role("link", name="Count further").click()

    expect(covers).to_contain_text("These are all 45,000 deliveries")


def test_a_page_does_not_ask_for_ever_for_what_is_counted_no_further(opened, host, monkeypatch):
    monkeypatch.setattr(counts, "BLOCK", 16)
    monkeypatch.setattr(counts, "FIRST_BLOCKS", 2)
    monkeypatch.setattr(counts, "MOST_BLOCKS", 4)
    counts.counts_of(host.app).blocks.clear()
    write_history(host, 400, lasting=timedelta(hours=1))
    asked = []
    page = opened("/?range=week")
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1500)

    assert len(asked) <= 2, "all are of the last two hours, and so none is remembered"
    expect(page.get_by_role("link", name="Count further")).to_be_visible()


class TestTasks:
    @both
    def test_one_is_cancelled_and_retried(self, opened, host, javascript):
        task_id = add_task(host)
        page = opened("/", java_script_enabled=javascript)
        page.get_by_role("link", name="open tasks").click()
        page.get_by_role("link", name="Cancel … Winter tea").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Cancel this task?")
        page.get_by_role("button", name="Cancel the task").click()

        expect(page.get_by_role("status").first).to_have_text("The task was cancelled.")
        assert host.task(task_id).status == "cancelled"
        page.get_by_role("link", name="Retry …").click()
        page.get_by_role("button", name="Retry the task").click()
        expect(page.get_by_role("status").first).to_have_text("The task has another attempt.")
        assert (host.task(task_id).status, host.task(task_id).attempt) == ("pending", 2)

    def test_the_keyboard_alone_goes_from_the_overview_to_the_end_of_a_task(self, opened, host):
        task_id = add_task(host)
        page = opened("/")
        for link in (
            page.get_by_role("link", name="Tasks", exact=True),
            page.get_by_role("link", name="Cancel … Winter tea"),
            page.get_by_role("button", name="Cancel the task"),
        ):
            tab_to(page, link)
            with page.expect_navigation():
                page.keyboard.press("Enter")

        expect(page.get_by_role("status").first).to_have_text("The task was cancelled.")
        assert host.task(task_id).status == "cancelled"


def test_the_keyboard_alone_goes_from_the_overview_to_a_failed_delivery_and_its_replay(opened, host):
    task_id = add_task(host)
    host.publisher.broken = True
    host.post(task_id, completed(task_id))
    host.publisher.broken = False
    page = opened("/")
    for control in (
        page.get_by_role("link", name="failed events"),
        page.get_by_role("link", name=str(host.deliveries()[0].id), exact=True),
        page.get_by_role("button", name="Replay"),
    ):
        tab_to(page, control)
        with page.expect_navigation():
            page.keyboard.press("Enter")

    expect(page.get_by_role("status").first).to_contain_text("was replayed as this one.")
    assert host.task(task_id).status == "completed"


class TestNumbers:
    @both
    def test_a_tile_and_a_bar_lead_to_what_they_count(self, opened, host, javascript):
        write_history(host, 400, lasting=timedelta(hours=26))
        page = opened("/", java_script_enabled=javascript)
        counted = page.locator(".tile.k-duplicates dd").inner_text()
        page.locator(".tile.k-duplicates").click()
        expect(page.locator("tr[data-id]")).to_have_count(int(counted))
        page.go_back()
        name = page.locator("svg .k-duplicates a").nth(5).get_attribute("aria-label")
        page.locator("svg .k-duplicates rect").nth(5).click()

        expect(page.locator("tr[data-id]")).to_have_count(int(name.rpartition(" ")[2]))
        expect(page.get_by_label("duplicate", exact=True)).to_be_checked()

    @both
    def test_the_overview_takes_from_and_to(self, opened, host, javascript):
        write_history(host, 400, lasting=timedelta(hours=26))
        page = opened("/", java_script_enabled=javascript)
        page.get_by_label("From (UTC)").fill(f"{host.clock() - timedelta(hours=6):%Y-%m-%dT%H:00}")
        page.get_by_label("To (UTC)").fill(f"{host.clock() - timedelta(hours=3):%Y-%m-%dT%H:00}")
        page.get_by_role("button", name="Show").click()

        expect(page.locator("svg rect.slot")).to_have_count(3)
        expect(page.get_by_label("To (UTC)")).to_have_value(f"{host.clock() - timedelta(hours=3):%Y-%m-%dT%H:00}")

    @both
    def test_on_a_phone_the_chart_begins_at_now(self, opened, host, javascript):
        write_history(host, 400, lasting=timedelta(hours=26))
        page = opened("/", java_script_enabled=javascript, **PHONE)

        frame, chart = page.locator(".chart-frame").bounding_box(), page.locator("svg.chart").bounding_box()
        assert chart["width"] > frame["width"]
        assert chart["x"] + chart["width"] <= frame["x"] + frame["width"]

    @pytest.mark.parametrize("width", [360, 390, 745, 820, 1010, 1280, 1440])
    def test_millions_fit_their_tiles(self, opened, width):
        page = opened("/", viewport={"width": width, "height": 900})
        page.locator(".tile dd").evaluate_all("cells => cells.forEach((cell) => { cell.textContent = '1,234,567'; })")

        wide = "cells => cells.filter((cell) => cell.scrollWidth > cell.clientWidth).length"
        assert page.locator(".tile").count() == 6
        assert page.locator(".tile > *").evaluate_all(wide) == 0

    def test_on_a_phone_every_state_of_the_forwards_to_a_url_is_in_sight(self, opened, host):
        write_history(host, 400, lasting=timedelta(hours=26))
        page = opened("/forwards", **PHONE)

        frame = page.get_by_role("region", name="Forwards by URL")
        assert frame.evaluate("frame => frame.scrollWidth - frame.clientWidth") == 0

    def test_on_a_tablet_the_reason_is_in_sight(self, opened, host):
        task_id = add_task(host)
        for _ in range(2):
            host.post(task_id, completed(task_id))
        page = opened("/deliveries", **TABLET)

        reason = page.get_by_text("The task is already completed.").first.bounding_box()
        assert reason["x"] + reason["width"] <= 820

    @pytest.mark.parametrize("width", [390, 820, 1200, 1280, 1366, 1440])
    def test_a_row_is_a_few_lines_with_its_reason_in_sight(self, opened, served, host, width):
        write_history(host, 400, lasting=timedelta(hours=26))
        task_id = add_task(host)
        host.publisher.broken = True
        host.post(task_id, completed(task_id))
        page = opened("/", viewport={"width": width, "height": 900})
        for path in ("/deliveries", "/tasks?show=all", "/forwards"):
            page.goto(served[1] + path)
            rows, height, is_cut = page.evaluate(LIST)

            assert rows > 39
            assert height / rows < (160 if width < 600 else 100), path
            assert not is_cut, path


LIST = """() => {
  const list = document.querySelector("table.deliveries");
  const frame = list.parentElement;
  return [list.tBodies[0].rows.length, list.offsetHeight, frame.scrollWidth > frame.clientWidth];
}"""
"""The rows of a list, its height, and whether it must be scrolled sideways."""


class TestTimes:
    def test_they_are_in_the_zone_of_the_reader_with_utc_beside_them(self, opened, host):
        at = host.clock()
        host.post(add_task(host), b"no json")
        page = opened("/deliveries", timezone_id="Asia/Shanghai")
        time = page.locator("tr[data-id] time").first

        expect(time).to_have_text(f"{at + timedelta(hours=8):%Y-%m-%d %H:%M:%S}")
        expect(time).to_have_attribute("title", f"{at:%Y-%m-%d %H:%M:%S} UTC")
        expect(page.locator("footer")).to_contain_text("Times are in Asia/Shanghai")

    def test_without_a_script_they_are_utc(self, opened, host):
        at = host.clock()
        host.post(add_task(host), b"no json")
        page = opened("/deliveries", timezone_id="Asia/Shanghai", java_script_enabled=False)

        expect(page.locator("tr[data-id] time").first).to_have_text(f"{at:%Y-%m-%d %H:%M:%S}")
        expect(page.locator("footer")).to_contain_text("All times are UTC.")

    def test_ages_grow(self, opened, host):
        host.post(add_task(host), b"no json")
        page = opened("/deliveries/1")
        page.clock.install()
        page.reload()
        expect(page.locator(".ago").first).to_have_text(re.compile("now|[0-9]+ s ago"))
        page.clock.run_for(185_000)

        expect(page.locator(".ago").first).to_have_text(re.compile("[0-9]+ min ago"))


class TestPayload:
    @both
    def test_parts_of_it_fold(self, opened, host, javascript):
        task_id = add_task(host)
        host.post(task_id, completed(task_id, "# Tea"))
        page = opened("/deliveries/1", java_script_enabled=javascript)
        inner = page.locator("#payload .j-string", has_text="# Tea")
        expect(inner).to_be_visible()
        page.locator("#payload summary", has_text='"result"').click()

        expect(inner).not_to_be_visible()
        expect(page.locator("#payload")).to_contain_text('"taskId"')

    def test_it_is_copied_whole_although_parts_are_folded(self, opened, host):
        task_id = add_task(host)
        host.post(task_id, completed(task_id, "# Tea"))
        page = opened("/deliveries/1", permissions=["clipboard-read", "clipboard-write"])
        page.locator("#payload summary", has_text='"result"').click()
        page.get_by_role("button", name="Copy").first.click()
        expect(page.locator(".copied").first).to_have_text("Copied.")

        copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert copied["result"]["content"] == "# Tea"


@both
def test_a_first_visit_sends_a_test_event(opened, host, keep, javascript):
    page = opened("/deliveries", java_script_enabled=javascript)
    keep(page, f"first-visit-{'with' if javascript else 'without'}-javascript")
    page.get_by_role("button", name="Send a test event").click()

    expect(page.locator(".banner.good")).to_contain_text("The test event came through")
    expect(page.locator("tr[data-id]")).to_have_count(1)
    assert [row.error for row in host.deliveries()] == ["task_not_found"]
