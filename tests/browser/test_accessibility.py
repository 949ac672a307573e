"""axe-core over every page, of the history and of the example application: it has nothing to object to.

Light and dark, on a wide screen, a tablet and a phone. A page that has no path here fails the first test.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from itertools import product

import pytest

from example_app import create_app
from example_app.extensions import db
from example_app.models import Content
from example_app.tasks import account_named, create_task
from tests.browser.conftest import serving
from tests.support.host import completed, failed, make_host, progress
from tests.support.long_history import write_history
from tests.support.pages import AT, open_to_all, start_anew

pytest.importorskip("playwright")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

LOOKS = [
    pytest.param(scheme, width, id=f"{scheme}-{width}")
    for scheme, width in product(("light", "dark"), (1440, 820, 390))
]
NO_PAGES = {"static", "new_deliveries", "body", "find"}
"""Endpoints that answer with something else than a page."""
BROKEN_WORDS = """() => [...document.querySelectorAll("th, .badge, .state, button")].filter((element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const tops = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
  return tops.size > 1 && /^[a-z]+$/i.test(element.textContent.trim());
}).map((element) => element.textContent.trim())"""
"""Words of headings, states and buttons that stand in two lines."""
LONG = "d\u202eefg" + "x" * 120

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def day(served):
    """An eventful day, of which every page has something to show: the paths of the pages by a name."""
    host = served[0]
    start_anew(host)
    write_history(host, 400, lasting=timedelta(hours=26))
    task_id = host.add_task(topic=f"Tea {LONG}", creator_task_id=LONG, callback_url="https://hub.example/x?token=A")
    host.post(task_id, progress(task_id, 40), attempt=1)
    host.post(task_id, failed(task_id, "No model answers."), attempt=1)
    host.publisher.broken = True
    host.post(task_id, completed(task_id), attempt=2)
    host.publisher.broken = False
    host.post(task_id, b"\0\x1b[2J no json", attempt=2)
    with host.app.app_context():
        alert = host.state.models.alert
        host.db.session.add(alert(name="failure_rate", raised=True, value=0.17, sample=52, changed_at=host.clock()))
        host.db.session.commit()
    now = host.clock()
    for minutes in (-5, 5):
        host.add_task(topic=f"Tea {LONG}", next_poll_at=now + timedelta(minutes=minutes), deadline_at=now)
    ended = host.add_task(topic="Tea", status="failed", error_code="LLM", error_message=LONG, finished_at=now)
    failed_one = next(row.id for row in host.deliveries(task_id) if row.verdict == "failed")
    return {
        "overview": "/",
        "overview-hour": "/?range=hour",
        "deliveries": "/deliveries",
        "deliveries-none": "/deliveries?event=nothing",
        "deliveries-wrong": "/deliveries?source=nowhere&from=yesterday",
        "deliveries-text": "/deliveries?text=nowhere",
        "delivery-failed": f"/deliveries/{failed_one}",
        "delivery-with-forwards": "/deliveries/10",
        "delivery-unknown": "/deliveries/99999999",
        "task": f"/task?id={task_id}",
        "task-unknown": f"/task?id={'f' * 255}",
        "tasks": "/tasks",
        "tasks-overdue": "/tasks?show=overdue",
        "tasks-failed": "/tasks?show=failed",
        "tasks-all": "/tasks?show=all",
        "task-cancel": f"/task/cancel?id={task_id}",
        "task-cancelled-already": f"/task/cancel?id={ended}",
        "task-retry": f"/task/retry?id={ended}",
        "failures": "/failures",
        "forward": "/forwards/10",
        "forwards-resend": "/forwards/resend?status=dead",
        "forwards": "/forwards",
        "forwards-dead": "/forwards?status=dead",
        "replay": "/replay",
        "replay-counted": "/replay?verdict=failed",
    }


@pytest.fixture(scope="module")
def nothing_yet(tmp_path_factory):
    """The address of pages over an empty history."""
    host = make_host(f"sqlite:///{tmp_path_factory.mktemp('empty') / 'test.db'}", after=open_to_all)
    with serving(host.app) as address:
        yield address + AT
    host.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of the example application, with an order of each kind."""
    app = create_app(
        {
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path_factory.mktemp('hub') / 'hub.db'}",
            "WEBHOOK_SECRET_KEY": "a-secret-of-the-tests-that-is-long-enough",
        }
    )
    with app.app_context():
        db.create_all()
        task = create_task(account_named("Tech Weekly"), "Tea", base_url="http://127.0.0.1/")
        for status in ("processing", "completed", "failed"):
            task = create_task(account_named("Tech Weekly"), f"Tea that is {status}", base_url="http://127.0.0.1/")
            task.status = status
        db.session.flush()
        db.session.add(Content(task_id=task.task_id, title="Tea " * 30, body="Tea.", account_id=task.account_id))
        db.session.commit()
    with serving(app) as address:
        yield address


def test_every_page_has_a_path_here(served, day):
    url_map = served[0].app.url_map
    adapter = url_map.bind("localhost")
    seen = {adapter.match(AT + path.partition("?")[0])[0] for path in day.values()}
    pages = {
        rule.endpoint
        for rule in url_map.iter_rules()
        if rule.endpoint.startswith("contenthub_dashboard.")
        and "GET" in rule.methods
        and rule.endpoint.rpartition(".")[2] not in NO_PAGES
    }

    assert pages - seen == set()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
class TestNothingToObjectTo:
    def test_on_the_history_pages(self, browser, served, day, keep, scheme, width):
        with window(browser, scheme, width) as page:
            found = objections(page, keep, served[1], day)
        assert not found, "\n".join(found)

    def test_on_pages_that_follow_a_form(self, browser, served, day, keep, scheme, width):
        host, address = served
        with window(browser, scheme, width) as page:
            host.publisher.broken = True  # so that there is something to replay in the next window, too
            page.goto(address + day["delivery-failed"])
            page.get_by_role("button", name="Replay").click()
            found = objections(page, keep, address, {"replay-that-failed": None})
            page.goto(address + day["replay-counted"])
            page.get_by_role("checkbox", name=re.compile("^Yes, replay")).check()
            page.get_by_role("button", name=re.compile("^Replay [0-9]")).click()
            page.get_by_text("Finished.").wait_for()  # a busy machine takes several pages for them
            host.publisher.broken = False
            found += objections(page, keep, address, {"replayed": None})

        assert not found, "\n".join(found)

    def test_on_an_empty_history(self, browser, nothing_yet, keep, scheme, width):
        paths = {
            f"empty-{name or 'overview'}": f"/{name}" for name in ("", "deliveries", "tasks", "forwards", "replay")
        }
        with window(browser, scheme, width) as page:
            found = objections(page, keep, nothing_yet, paths)
        assert not found, "\n".join(found)

    def test_on_the_example_application(self, browser, hub, keep, scheme, width):
        with window(browser, scheme, width) as page:
            found = objections(page, keep, hub, {"hub": "/"})
        assert not found, "\n".join(found)


@contextmanager
def window(browser, scheme, width):
    """A window of a browser, without animations, since a colour that changes has no contrast."""
    height = 844 if width == 390 else 900
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


def objections(page, keep, address, paths):
    """What axe-core says against pages, and which of them scroll sideways; without a path, the page as it is."""
    found = []
    for name, path in paths.items():
        if path is not None:
            page.goto(address + path)
        scheme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
        keep(page, f"{name}-{scheme}-{page.viewport_size['width']}")
        found += [
            f"{name}: {violation['id']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in Axe().run(page).response["violations"]
            for node in violation["nodes"][:3]
        ]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{name}: scrolls sideways")
        found += [f"{name}: the word {word} breaks" for word in page.evaluate(BROKEN_WORDS)]
        if page.evaluate("document.querySelectorAll('link[rel~=icon]').length !== 1"):
            found.append(f"{name}: no icon")
    return found
