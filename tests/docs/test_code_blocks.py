"""Every block of Python in README and docs runs as it is pasted; one that cannot says why, in a comment above it.

The blocks of a page share their names, as in a reader's module. A block finds `app`, `db` and `webhook`, registered
unless the block itself registers them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column

import flask_contenthub_webhook
from flask_contenthub_webhook import ContentHubWebhook, creators
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from tests.docs.test_pages import PAGES
from tests.support.processes import PROJECT_ROOT, clean_environment

ELSEWHERE = {
    "README.md": {"# Commits together with": "test_readme.py"},
    "docs/quickstart.zh.md": {"": "test_readme.py"},
    "docs/signatures.md": {"": "test_signature_senders.py"},
}
"""Blocks with these words are run by another file, as they stand."""
SECRET = "only-for-the-examples-and-long-enough-for-any-scheme"
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n+)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    page: str
    line: int
    code: str
    why_not: str | None


def blocks() -> Iterator[Block]:
    for page in PAGES:
        name, text = str(page.relative_to(PROJECT_ROOT)), page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if not any(words in found["code"] for words in ELSEWHERE.get(name, {})):
                yield Block(name, text.count("\n", 0, found.start("code")) + 1, found["code"], found["why"])


class Creator:
    """A service that takes whatever it is given."""

    def submit(self, job: Any, *, wait: float) -> Any:
        return creators.Report(state=creators.RemoteState.OPEN)

    def status(self, creator_task_id: str) -> Any:
        return creators.Report(state=creators.RemoteState.OPEN)

    result = status

    def statuses(self, creator_task_ids: Any, *, since: Any = None) -> Mapping[str, Any]:
        return {}

    def cancel(self, creator_task_id: str) -> None:
        pass


def surroundings(page: str, code: str) -> dict[str, Any]:
    """What stands around a block in a reader's application, made anew for each block."""
    app, db, webhook = Flask("hub"), SQLAlchemy(), ContentHubWebhook()
    app.config |= {
        "SQLALCHEMY_DATABASE_URI": "sqlite://",
        "WEBHOOK_SECRET_KEY": SECRET,
        "WEBHOOK_REQUIRE_SIGNATURE": True,
        "WEBHOOK_ENABLED": True,
        "WEBHOOK_CALLBACK_BASE_URL": "https://hub.example",
        "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
        "WEBHOOK_SUBMIT_THREADS": 0,
    }
    db.init_app(app)

    class Article(db.Model):  # type: ignore[name-defined,misc]
        id: Mapped[int] = mapped_column(primary_key=True)
        task_id: Mapped[str]
        body: Mapped[str]

    class Account(db.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "accounts"
        id: Mapped[int] = mapped_column(primary_key=True)

    if not re.search(r"webhook\.init_app\(|ContentHubWebhook\(app", code):
        several = creators.Creators(openai=Creator(), replicate=Creator())
        webhook.init_app(app, db, creator=several if "creator=" in code else Creator())
        with app.app_context():
            db.create_all()
    ours = {name: getattr(flask_contenthub_webhook, name) for name in flask_contenthub_webhook.__all__}
    ours |= {name: getattr(creators, name) for name in creators.__all__}
    return ours | {
        "app": app,
        "db": db,
        "webhook": webhook,
        "Article": Article,
        "Flask": Flask,
        "pytest": pytest,
        "Index": sa.Index,
        "ForeignKey": sa.ForeignKey,
        "Mapped": Mapped,
        "mapped_column": mapped_column,
        **(OF_A_PAGE[page]() if page in OF_A_PAGE else {}),
    }


def _services() -> dict[str, Any]:
    import os

    import replicate
    from openai import OpenAI

    return {"OpenAI": lambda: OpenAI(api_key="sk-none"), "os": os, "replicate_client": replicate.Client("r8-none")}


def _example(name: str) -> dict[str, Any]:
    path = PROJECT_ROOT / "docs" / name
    module = ModuleType(path.stem)
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    return {name: value for name, value in module.__dict__.items() if not name.startswith("_")}


OF_A_PAGE = {
    "docs/alerts.md": lambda: {"send_to_chat": print},
    "docs/creators.md": lambda: _example("own_creator.py"),
    "docs/dashboard.zh.md": lambda: {"current_user": SimpleNamespace(is_authenticated=True, is_admin=True)},
    "docs/dashboard.md": lambda: {"current_user": SimpleNamespace(is_authenticated=True, is_admin=True)},
    "docs/metrics.md": lambda: {"SCRAPE_TOKEN": "x", "metrics": WebhookMetrics()},
    "docs/recipes.md": lambda: _example("examples/polled.py"),
    "docs/services.md": _services,
}
"""What a page says is yours: your chat, your users, your clients."""


def run_blocks(page: str) -> None:
    """Run the blocks of a page; `hub` is the module in which they stand."""
    sys.modules["hub"] = ModuleType("hub")
    names: dict[str, Any] = {}
    for block in blocks():
        if block.page != page or block.why_not:
            continue
        hub = sys.modules["hub"]
        around = surroundings(page, block.code)
        defined = {name: value for name, value in names.items() if name not in {"app", "db", "webhook"}}
        scope = {**around, **defined, "__name__": "hub"}
        vars(hub).update(around | defined)
        code = compile("\n" * (block.line - 1) + block.code, PROJECT_ROOT / page, "exec")
        if around["app"].extensions.get("contenthub_webhook"):
            with around["app"].app_context():
                exec(code, scope)
        else:
            exec(code, scope)
        names |= {name: value for name, value in scope.items() if around.get(name) is not value}


@pytest.mark.parametrize("page", sorted({block.page for block in blocks()}))
def test_the_blocks_of_a_page_run_as_they_are_pasted(page: str) -> None:
    """In a process of their own: what they set up, such as logging and tracing, must not stay."""
    secret = "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw=="
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.test_code_blocks", page],
        check=False,
        cwd=PROJECT_ROOT,
        env={**clean_environment(), "OPENAI_WEBHOOK_SECRET": secret, "REPLICATE_WEBHOOK_SECRET": secret},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr


def test_a_block_that_does_not_run_says_why() -> None:
    reasons = [block.why_not for block in blocks() if block.why_not]

    assert 0 < len(reasons) < 10
    assert [reason for reason in reasons if len(reason.split()) < 4] == []


@pytest.mark.parametrize("page", sorted(ELSEWHERE))
def test_what_another_file_runs_is_named_there(page: str) -> None:
    for file in ELSEWHERE[page].values():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert Path(page).name in text


def test_every_block_of_json_is_json() -> None:
    found = [
        (page.name, block)
        for page in PAGES
        for block in re.findall(r"^```json\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    ]

    assert found
    for _, block in found:
        json.loads(block)


def test_the_history_pages_of_the_readme_answer() -> None:
    (block,) = (block for block in blocks() if block.page == "README.md" and "create_dashboard" in block.code)
    scope = surroundings("README.md", block.code)
    exec(block.code, scope)

    answer = scope["app"].test_client().get("/webhooks/")

    assert answer.status_code == 200
    assert "Overview" in answer.text
    assert scope["app"].test_client().get("/webhooks/", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 403


if __name__ == "__main__":
    run_blocks(sys.argv[1])
