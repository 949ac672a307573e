"""A fresh person's walk in a real browser: from an alert to the cause, to the replay, to "all applied"."""

from __future__ import annotations

import re
import time

import pytest

from flask_contenthub_webhook.operations.alerts import check_alerts
from tests.browser.test_history_pages import POOR_CONTRASTS, UNREACHABLE
from tests.integration.test_dashboard_details import add_forwards
from tests.support.host import completed
from tests.support.web_server import figure

expect = pytest.importorskip("playwright.sync_api").expect

MOST_CLICKS, MOST_SECONDS = 4, 60
SIZES = {"desktop": 1440, "tablet": 820, "phone": 390}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def outage(host):
    """Twelve tasks whose completion the handlers failed at, twice, and twelve later ones that were applied."""
    task_ids = [host.add_task() for _ in range(24)]
    host.publisher.broken = True
    for task_id in task_ids[:12]:
        host.post(task_id, completed(task_id))
    host.clock.advance(40)
    host.retry()
    host.publisher.broken = False
    for task_id in task_ids[12:]:
        host.post(task_id, completed(task_id))
    check_alerts(host.state)
    return task_ids[:12]


class Clicks:
    """Clicks on a page, counted."""

    def __init__(self, page):
        self.page = page
        self.count = 0

    def on(self, role, name):
        self.count += 1
        self.page.get_by_role(role, name=name).first.click()


@pytest.mark.parametrize("start", ["/", "/deliveries", "/forwards"])
def test_from_the_alert_on_any_page_to_all_applied(opened, host, outage, start):
    page = opened(start, java_script_enabled=False)
    clicks, began = Clicks(page), time.monotonic()

    expect(page.get_by_role("alert")).to_contain_text("The handlers failed at 50.0% of 24 events")
    clicks.on("link", "See what failed, and why")
    expect(page.get_by_role("heading", name="12 times BrokenHandler in Publisher")).to_be_visible()
    expect(page.locator("pre.error")).to_contain_text('raise BrokenHandler("the publisher is broken")')
    clicks.on("link", "Replay these 12")
    clicks.on("checkbox", "Yes, replay these 12")
    clicks.on("button", "Replay 12")

    expect(page.locator(".count")).to_contain_text("12 applied: 12 of 12 done. Finished.")
    assert [host.task(task_id).status for task_id in outage] == ["completed"] * 12
    took = time.monotonic() - began
    figure(f"From the alert on {start} to all applied: {clicks.count} clicks, {took:.1f} s")
    assert (clicks.count <= MOST_CLICKS, took < MOST_SECONDS) == (True, True)


def test_a_bulk_replay_that_fails_says_so_and_leads_to_the_new_deliveries(opened, host, outage):
    host.publisher.broken = True
    page = opened("/replay?verdict=failed", java_script_enabled=False)
    page.get_by_role("checkbox", name="Yes, replay these 12").check()
    page.get_by_role("button", name="Replay 12").click()

    expect(page.locator(".count")).to_contain_text("0 applied, 12 failed again: 12 of 12 done. Finished.")
    expect(page.get_by_text("Publisher: BrokenHandler: the publisher is broken")).to_have_count(12)
    newest = host.deliveries()[-1].id
    page.get_by_role("link", name=str(newest), exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Delivery {newest}")


def test_a_single_replay_that_fails_redirects_and_can_be_reloaded(opened, host, outage):
    host.publisher.broken = True
    first = host.deliveries()[0].id
    page = opened(f"/deliveries/{first}", java_script_enabled=False)
    page.get_by_role("button", name="Replay").click()

    expect(page.get_by_role("alert").last).to_contain_text(
        f"Delivery {first} was replayed as this one, and failed again"
    )
    kept = len(host.deliveries())
    page.reload()
    assert len(host.deliveries()) == kept
    assert page.url.endswith("?replayed=1")


def test_a_delivery_shows_our_answer_and_every_try(opened, host, outage):
    page = opened(f"/deliveries/{host.deliveries()[0].id}", java_script_enabled=False)

    expect(page.get_by_text("500 handler_failed")).to_be_visible()
    rows = page.get_by_role("table", name="Tries of the handlers").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text(re.compile(r"2.*ms.*failed.*Publisher", re.DOTALL))
    expect(page.locator("details[open] pre")).to_contain_text('raise BrokenHandler("the publisher is broken")')


def test_failures_are_acknowledged_by_a_person(opened, host, outage):
    page = opened("/failures", java_script_enabled=False)
    page.get_by_role("button", name="Acknowledge").click()

    expect(page.get_by_text("Acknowledged by somebody at 127.0.0.1")).to_be_visible()
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)


def test_forwards_are_sent_again_one_and_many(opened, host, outage):
    add_forwards(host, host.deliveries()[0].id, outage[0], 9)
    page = opened("/forwards/3", java_script_enabled=False)
    page.get_by_role("button", name="Resend").click()
    expect(page.get_by_text("by somebody at 127.0.0.1")).to_be_visible()

    page.get_by_role("link", name="Forwards", exact=True).first.click()
    page.get_by_role("link", name="Resend the dead ones").click()
    page.get_by_role("checkbox", name="Yes, send these 2 again").check()
    page.get_by_role("button", name="Resend 2").click()
    expect(page.get_by_role("status")).to_contain_text("2 of 2 are to be sent again. Finished.")


@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_pages_look_well_at_every_width(opened, served, host, outage, keep, look):
    first = host.deliveries()[0].id
    add_forwards(host, first, outage[0], 9)
    paths = {
        "failures": "/failures",
        "tries": f"/deliveries/{first}",
        "forward": "/forwards/3",
        "resend": "/forwards/resend?status=dead",
    }
    page = opened("/failures", color_scheme=look)
    for size, width in SIZES.items():
        page.set_viewport_size({"width": width, "height": 900})
        for name, path in paths.items():
            page.goto(served[1] + path)
            keep(page, f"{name}-{size}-{look}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, size)
            assert page.evaluate(POOR_CONTRASTS) == [], (name, size)
            assert page.evaluate(UNREACHABLE) == [], (name, size)
