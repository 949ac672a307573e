"""Draw the pictures of the history pages anew: ``make screenshots``.

The example app is filled with a day of callbacks, always the same, and shown by the machine's own Chromium.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Flask
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

from example_app import create_app
from example_app.extensions import db
from example_app.models import Account, Delivery, GenerationTask

HERE = Path(__file__).parent
LARGEST = 100_000
"""Bytes of a picture, so that git stays light."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
VERDICTS = {"processed": 780, "duplicate": 130, "rejected": 45, "failed": 6, "dead": 2, "stale": 12, "ignored": 15}
REASONS = {
    "duplicate": "The task is already completed.",
    "failed": "OperationalError: the search index is away (handler publish)",
    "dead": "KeyError: 'content' (handler publish)",
    "ignored": "The task is already completed.",
    "stale": "It belongs to attempt 1; the current attempt is 2.",
}


def main() -> None:
    """Draw every picture."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(
            {
                "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder}/hub.db",
                "WEBHOOK_SECRET_KEY": "only-for-pictures-and-for-nothing-else-at-all",
                "SECRET_KEY": "only-for-pictures",
            }
        )
        with app.app_context():
            db.create_all()
            task_id = fill()
        take(app, {"overview": "/webhooks/", "timeline": f"/webhooks/task?id={task_id}"})


def fill() -> str:
    """Write the day, and return the id of the task whose timeline is shown."""
    draw = random.Random(16)  # noqa: S311 - a picture, not a secret
    now = datetime.now(UTC)
    account = Account(name="Tech Weekly")
    db.session.add(account)
    db.session.flush()
    verdicts = [verdict for verdict, number in VERDICTS.items() for _ in range(number)]
    draw.shuffle(verdicts)
    for place, verdict in enumerate(verdicts):
        busy = 1 - (place / len(verdicts)) ** 0.7  # more of them by day
        at = now - timedelta(hours=23.5 * busy, minutes=draw.random() * 20)
        add(verdict, at, draw)
    task_id = story(account.id, now - timedelta(minutes=9))
    db.session.commit()
    return task_id


def add(verdict: str, at: datetime, draw: random.Random, **more: object) -> None:
    """Add a delivery to the session."""
    columns: dict[str, object] = {
        "task_id": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        "event": "completed",
        "attempt": 1,
        "source": "webhook",
        "scheme": None if verdict == "rejected" else "url",
        "verdict": verdict,
        "error": "signature_invalid" if verdict == "rejected" else None,
        "reason": REASONS.get(verdict),
        "status_before": None if verdict == "rejected" else "submitted",
        "status_after": None if verdict == "rejected" else "completed",
        "next_retry_at": at + timedelta(minutes=2) if verdict == "failed" else None,
        "received_at": at,
        "latency_ms": draw.lognormvariate(2.2, 0.4),
        "body": b"{}",
    }
    db.session.add(Delivery(**columns | more))


def story(account_id: int, began: datetime) -> str:
    """Write a task that failed once, was forged once, and was completed by a poll."""
    draw, task_id = random.Random(5), "6f0c9f5e-4f1d-4a0c-9d0e-3b7a5b1c2d3e"  # noqa: S311 - the same
    task = GenerationTask(
        task_id=task_id,
        account_id=account_id,
        topic="Tea in winter",
        status="completed",
        attempt=2,
        creator_task_id="c2",
    )
    task.created_at, task.finished_at = began, began + timedelta(minutes=7)
    db.session.add(task)
    steps = (
        (1, "submitted", "response", "processed", "pending", "submitted", 1, None),
        (40, "progress", "webhook", "processed", "submitted", "processing", 1, None),
        (70, "failed", "webhook", "processed", "processing", "pending", 1, None),
        (102, "submitted", "response", "processed", "pending", "submitted", 2, None),
        (150, "completed", "webhook", "rejected", None, None, 2, "The signature does not match."),
        (225, "failed", "webhook", "stale", "submitted", "submitted", 1, REASONS["stale"]),
        (420, "completed", "poll", "processed", "submitted", "completed", 2, None),
        (455, "completed", "webhook", "duplicate", "completed", "completed", 2, REASONS["duplicate"]),
    )
    for seconds, event, source, verdict, before, after, attempt, reason in steps:
        more = {
            "task_id": task_id,
            "event": event,
            "source": source,
            "status_before": before,
            "status_after": after,
            "attempt": attempt,
            "reason": reason,
        }
        add(verdict, began + timedelta(seconds=seconds), draw, **more)
    return task_id


def take(app: Flask, pages: dict[str, str]) -> None:
    """Show the pages to a Chromium, and write what it sees."""
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        sys.exit("There is no Chromium here. `.ci/browser` installs one; CHROMIUM names another.")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme="light", reduced_motion="reduce")
        for name, path in pages.items():
            answer = view.goto(f"http://127.0.0.1:{server.server_port}{path}")
            if answer is None or not answer.ok:
                sys.exit(f"{path} cannot be shown.")
            if name == "timeline":
                view.set_viewport_size({"width": 740, "height": 900})  # as wide as its words, down to its end
                view.locator("h2", has_text="Timeline").evaluate("heading => heading.scrollIntoView()")
            picture = HERE / f"{name}.png"
            view.screenshot(path=picture)
            if (size := picture.stat().st_size) > LARGEST:
                sys.exit(f"{picture.name} has {size} bytes, more than {LARGEST}.")
            sys.stdout.write(f"{picture.relative_to(HERE.parent)}: {size} bytes\n")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
