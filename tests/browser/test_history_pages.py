"""An operator at a real browser: filters, pages through, replays one and many, watches, with JavaScript and without.

``BROWSER_DELIVERIES=100000 python -m pytest tests/browser -rP`` is the full run; without it the history is short. What
was seen is kept in ``tests/browser/screenshots``.
"""

from __future__ import annotations

import json
import os
import re
import time
from datetime import timedelta

import pytest

from tests.support.host import completed, failed, progress
from tests.support.long_history import write_history
from tests.support.web_server import figure

expect = pytest.importorskip("playwright.sync_api").expect

COUNT = int(os.environ.get("BROWSER_DELIVERIES", "2000"))
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
EVIL = (
    '<script>window.pwned = 1; alert(1)</script>"><img src=x onerror="window.pwned = 1; alert(2)">'
    "<a href='javascript:alert(3)'>x</a>{{7*7}}</code></pre><b>bold</b> \u202egnp.exe\u202c \u200b"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if COUNT > 10_000 else 300)]


@pytest.fixture
def eventful(host):
    """A day in the life of a host: the id of a task that went through a lot, and the delivery that failed."""
    write_history(host, 400, lasting=timedelta(hours=26))
    task_id = host.add_task(topic=EVIL, creator_task_id="creators-own", callback_url="https://hub.example/x?token=A")
    for percentage in (10, 40):
        host.post(task_id, progress(task_id, percentage), attempt=1)
        host.clock.advance(30)
    host.post(task_id, failed(task_id, EVIL), attempt=1)
    host.clock.advance(60)
    host.publisher.broken = True
    host.post(task_id, completed(task_id, EVIL), attempt=2, headers={"X-Evil": EVIL.encode("ascii", "ignore").decode()})
    host.publisher.broken = False
    host.post(task_id, b"\0\x1b[2J no json", attempt=2)
    with host.app.app_context():
        alert = host.state.models.alert
        host.db.session.add(alert(name="failure_rate", raised=True, value=0.17, sample=52, changed_at=host.clock()))
        host.db.session.commit()
    failed_one = next(row.id for row in host.deliveries(task_id) if row.verdict == "failed")
    return task_id, failed_one


def numbers(page):
    """The deliveries of the list, from top to bottom."""
    return page.eval_on_selector_all("tr[data-id]", "rows => rows.map(row => Number(row.dataset.id))")


class TestPagesOfTheDay:
    def test_they_look_well_in_light_and_dark_and_on_a_phone(self, opened, served, eventful, keep):
        task_id, failed_one = eventful
        paths = {
            "overview": "/",
            "deliveries": "/deliveries",
            "delivery": f"/deliveries/{failed_one}",
            "task": f"/task?id={task_id}",
            "forwards": "/forwards",
            "replay": "/replay?verdict=failed",
        }
        for look, options in (("light", {}), ("dark", {"color_scheme": "dark"}), ("phone", PHONE)):
            page = opened("/", **options)
            for name, path in paths.items():
                page.goto(served[1] + path)
                keep(page, f"{name}-{look}")
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, look)
                assert page.evaluate(POOR_CONTRASTS) == [], (name, look)
                assert page.evaluate(UNREACHABLE) == [], (name, look)
            page.context.close()

    def test_what_a_stranger_sent_is_shown_and_not_obeyed(self, opened, eventful):
        task_id, failed_one = eventful
        for path in (f"/deliveries/{failed_one}", f"/task?id={task_id}", f"/deliveries?text=onerror&task={task_id}"):
            page = opened(path)
            assert page.evaluate("window.pwned") is None
            assert page.locator("main img, main script, main b").count() == 0
        body = opened(f"/deliveries/{failed_one}").locator("#body ~ .body").inner_text()
        assert EVIL.split(" \u202e", maxsplit=1)[0].replace('"', '\\"') in body
        assert "⟨U+202E⟩gnp.exe⟨U+202C⟩" in body

    def test_the_chart_is_drawn(self, opened, eventful):
        page = opened("/")

        bars = page.locator("svg.chart .k-accepted rect")
        assert bars.count() in {24, 25}  # in the first minutes of an hour, nothing may have come in it
        assert bars.nth(12).evaluate("bar => getComputedStyle(bar).fill") == "rgb(59, 154, 140)"
        assert bars.nth(12).bounding_box()["height"] > 50
        page.get_by_text("The same as a table").click()
        expect(page.get_by_role("table", name="Deliveries over time")).to_be_visible()

    def test_the_keyboard_is_enough(self, opened, eventful):
        page = opened("/deliveries")

        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Task", exact=True)).to_be_focused()
        page.keyboard.type("nobody")
        page.keyboard.press("Enter")
        expect(page.get_by_text("No delivery is like that.")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
class TestWork:
    def test_filters_are_filled_in_and_kept(self, opened, eventful, javascript):
        page = opened("/", java_script_enabled=javascript)
        page.get_by_role("link", name="Deliveries", exact=True).click()
        page.get_by_label("failed", exact=True).check()
        page.get_by_label("Event").fill("completed")
        page.get_by_text("More filters").click()
        page.get_by_label("webhook", exact=True).check()
        page.get_by_label("Received").select_option("hour")
        page.get_by_role("button", name="Show").click()

        expect(page.locator("tr[data-id]")).to_have_count(1)
        expect(page.get_by_label("failed", exact=True)).to_be_checked()
        expect(page.get_by_label("webhook", exact=True)).to_be_visible()
        expect(page.get_by_label("Event")).to_have_value("completed")
        page.get_by_role("link", name="Clear").click()
        expect(page.locator("tr[data-id]")).to_have_count(50)

    def test_one_delivery_is_replayed(self, opened, eventful, host, keep, javascript):
        task_id, failed_one = eventful
        page = opened(f"/task?id={task_id}", java_script_enabled=javascript)
        page.locator(".timeline .step", has_text="BrokenHandler").get_by_role("link").click()
        page.get_by_role("button", name="Replay").click()

        expect(page.get_by_role("status").first).to_have_text(re.compile(f"Delivery {failed_one} was replayed"))
        assert host.task(task_id).status == "completed"
        keep(page, f"replayed-one-{'with' if javascript else 'without'}-javascript")

    def test_many_are_replayed_in_chunks(self, opened, host, keep, monkeypatch, javascript):
        monkeypatch.setattr("flask_contenthub_webhook.contrib.dashboard.bulk._MOST_AT_ONCE", 4)
        task_ids = [host.add_task() for _ in range(10)]
        host.publisher.broken = True
        for task_id in task_ids:
            host.post(task_id, completed(task_id))
        host.publisher.broken = False
        page = opened("/deliveries?verdict=failed", java_script_enabled=javascript)
        page.get_by_role("link", name="Replay these").click()
        expect(page.locator(".count")).to_contain_text("10 deliveries would be replayed")
        page.get_by_label("Yes, replay these 10").check()
        page.get_by_role("button", name="Replay 10").click()

        expect(page.locator(".count")).to_contain_text("4 applied: 4 of 10 done")
        keep(page, f"replaying-many-{'with' if javascript else 'without'}-javascript")
        if not javascript:
            page.get_by_role("button", name="Continue").click()
            page.get_by_role("button", name="Continue").click()
        expect(page.locator(".count")).to_contain_text("10 applied: 10 of 10 done. Finished.")
        assert [host.task(task_id).status for task_id in task_ids] == ["completed"] * 10

    def test_a_time_is_chosen_from_and_to(self, opened, host, javascript):
        write_history(host, 40, lasting=timedelta(hours=40))
        page = opened("/deliveries", java_script_enabled=javascript)
        page.get_by_label("Received").select_option("custom")
        page.get_by_label("To (UTC)").fill(f"{host.clock() - timedelta(hours=30):%Y-%m-%dT%H:%M}")
        page.get_by_role("button", name="Show").click()

        expect(page.locator("tr[data-id]")).to_have_count(9)


class TestWithJavaScript:
    def test_new_deliveries_appear_by_themselves(self, opened, eventful, host, keep):
        page = opened("/deliveries?event=progress")
        page.clock.install()
        page.reload()
        newest = numbers(page)[0]
        task_id = host.add_task()
        host.post(task_id, progress(task_id, 10))
        host.post(task_id, completed(task_id))
        page.clock.run_for(5_100)

        expect(page.get_by_role("status").first).to_have_text("1 new delivery.")
        assert numbers(page)[0] > newest
        assert numbers(page)[1] == newest
        keep(page, "live")

        page.get_by_role("button", name="Pause").click()
        host.post(task_id, progress(task_id, 20))
        page.clock.run_for(60_000)
        expect(page.get_by_role("status").first).to_have_text("Paused.")
        assert len(numbers(page)) == 51

    def test_the_first_callback_of_all_appears_too(self, opened, host):
        page = opened("/deliveries")
        page.clock.install()
        page.reload()
        expect(page.get_by_text("No callback has come yet.")).to_be_visible()
        task_id = host.add_task()
        host.post(task_id, completed(task_id))
        page.clock.run_for(5_100)

        expect(page.locator("tr[data-id]")).to_have_count(1)
        expect(page.get_by_text("No callback has come yet.")).to_have_count(0)

    def test_the_command_is_copied(self, opened, host):
        task_id = host.add_task()
        host.post(task_id, json.dumps({"event": "progress", "taskId": task_id, "progress": {}}).encode())
        page = opened("/deliveries/1", permissions=["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy").last.click()

        expect(page.locator(".copied").last).to_have_text("Copied.")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("curl 'https://hub.example/api/v1/content/callback/")
        assert copied.endswith("'")

    def test_a_bulk_replay_can_be_stopped(self, opened, host, monkeypatch):
        monkeypatch.setattr("flask_contenthub_webhook.contrib.dashboard.bulk._MOST_AT_ONCE", 1)
        task_id = host.add_task()
        for percentage in (1, 2, 3):
            host.post(task_id, progress(task_id, percentage))
        page = opened("/replay?event=progress")
        page.clock.install()
        page.get_by_label("Yes, replay these 3").check()
        page.get_by_role("button", name="Replay 3").click()
        page.get_by_role("button", name="Stop here").click()
        page.clock.run_for(10_000)

        expect(page.locator(".count")).to_contain_text("1 of 3 done")


def test_a_form_of_another_site_is_refused(opened, eventful, host, served):
    _, failed_one = eventful
    page = opened(f"/deliveries/{failed_one}")
    fields = page.eval_on_selector_all(
        "form[method=post] input", "inputs => inputs.map(input => [input.name, input.value])"
    )
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields)
    other = page.context.new_page()
    other.set_content(
        f'<form method="post" action="{served[1]}/deliveries/{failed_one}/replay">{inputs}<button>Win</button>'
    )
    other.get_by_role("button", name="Win").click()

    expect(other.get_by_role("heading")).to_have_text("Forbidden")
    assert host.delivery(failed_one).verdict == "failed"


def test_all_of_a_long_history_is_paged_through_and_back(opened, host):
    write_history(host, COUNT)
    page = opened("/deliveries", java_script_enabled=False)
    began, seen = time.monotonic(), numbers_of(page)
    while page.get_by_role("link", name="Older").count():
        with page.expect_navigation(wait_until="domcontentloaded"):
            page.get_by_role("link", name="Older").click()
        seen += numbers_of(page)
    took = time.monotonic() - began
    figure(f"{COUNT:,} deliveries, {-(-COUNT // 50):,} pages, {took:.1f} s: {took / COUNT * 50_000:.0f} ms a page")

    assert seen == list(range(COUNT, 0, -1))
    page.get_by_role("link", name="Newer").click()
    expect(page.locator("tr[data-id]").last).to_have_attribute("data-id", str(seen[-51]))
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tr[data-id]").first).to_have_attribute("data-id", str(COUNT))


def numbers_of(page):
    """The same without a script in the page."""
    return [int(number) for number in re.findall(r'<tr data-id="(\d+)"', page.content())]


POOR_CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = rgba(getComputedStyle(element).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const poor = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colours = [rgba(element.closest("svg") ? style.fill : style.color), ground(element)].map(luminance);
    const ratio = (Math.max(...colours) + 0.05) / (Math.min(...colours) + 0.05);
    const name = `${element.tagName}.${element.className.baseVal ?? element.className}`;
    if (ratio < 4.5) poor.add(`${name}: ${ratio.toFixed(2)}`);
  }
  return [...poor];
}"""
"""Texts that are hard to read: WCAG's contrast of less than 4.5."""

UNREACHABLE = """() => {
  const found = [];
  const say = (what, elements) => elements.length && found.push(`${what}: ${elements[0].outerHTML.slice(0, 120)}`);
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (all("h1").length !== 1) found.push("not one h1");
  if (all("main").length !== 1 || all("header nav[aria-label]").length !== 1) found.push("landmarks");
  if (!document.documentElement.lang || !document.title) found.push("language or title");
  say("no label", all("input:not([type=hidden]), select").filter((field) => !field.labels.length));
  say("no name", all("a, button, summary").filter((link) => !link.textContent.trim() && !link.ariaLabel));
  say("no caption", all("table").filter((table) => !table.caption));
  say("no scope", all("th:not([scope])"));
  say("scrolls without the keyboard", all(".scroll, .body").filter(
    (box) => box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0 && !box.querySelector("a")));
  const levels = all("h1, h2, h3").map((heading) => Number(heading.tagName[1]));
  if (levels.some((level, index) => level > (levels[index - 1] ?? 0) + 1)) found.push("a heading's level");
  const ids = all("[id]").map((element) => element.id);
  if (new Set(ids).size !== ids.length) found.push(`an id twice: ${ids}`);
  return found;
}"""
"""What a reader without eyes or without a mouse would miss."""
