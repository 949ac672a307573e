"""A real Chromium in front of the history pages, which a real server serves over loopback.

It is the machine's own (Debian: ``apt-get install chromium``), or one that Playwright has installed; CHROMIUM names
another. The tests are skipped where there is none.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support.host import make_host
from tests.support.pages import AT, open_to_all, start_anew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Playwright, Request

    from tests.support.host import Host

SCREENSHOTS = Path(__file__).with_name("screenshots")
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
OPTIONS = (
    "--no-sandbox",  # CI runs as root, in a container that is the sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever is not ours cannot be reached
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of one module.

    While it runs, so does an event loop in this thread, where no test of coroutine handlers could run.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        executable = _executable(driver)
        if executable is None:
            pytest.skip("There is no Chromium here; on Debian: apt-get install --no-install-recommends chromium")
        chromium = driver.chromium.launch(executable_path=executable, args=list(OPTIONS))
        yield chromium
        chromium.close()


def _executable(driver: Playwright) -> str | None:
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (driver.chromium.executable_path if Path(driver.chromium.executable_path).exists() else None)


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        """Requests are not worth a line."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, str]]:
    """A host application that is served, and the address of its history pages."""
    url = f"sqlite:///{tmp_path_factory.mktemp('browser') / 'test.db'}"
    host = make_host(url, after=open_to_all, WEBHOOK_CALLBACK_BASE_URL="https://hub.example")
    with serving(host.app) as address:
        yield host, address + AT
    host.close()


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an application over loopback, and tell its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def host(served: tuple[Host, str]) -> Host:
    """The application, over empty tables."""
    start_anew(served[0])
    return served[0]


class Complaints(list[str]):
    """What the browser's console and its network had to say against the pages."""

    def watch(self, page: Page, address: str) -> None:
        """Collect from a page; only `address` and what is below it may be asked for."""

        def on_console(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.append(message.text)

        def on_dialog(dialog: Dialog) -> None:
            self.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        def on_request(request: Request) -> None:
            if not request.url.startswith(address):
                self.append(request.url)

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("dialog", on_dialog)
        page.on("request", on_request)


@pytest.fixture
def complaints() -> Complaints:
    """Empty at the end of a test, unless it says what it expects."""
    return Complaints()


@pytest.fixture
def opened(browser: Browser, served: tuple[Host, str], complaints: Complaints) -> Iterator[Callable[..., Page]]:
    """A function that opens a page in a window of its own: its path, and options of Playwright's `new_context`."""
    contexts = []

    def open_page(path: str, **options: Any) -> Page:
        context = browser.new_context(base_url=served[1], **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        complaints.watch(page, served[1])
        page.goto(served[1] + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def keep() -> Callable[[Page, str], None]:
    """A function that keeps a screenshot of a whole page under a name."""
    SCREENSHOTS.mkdir(exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return take
