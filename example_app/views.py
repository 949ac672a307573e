"""The application's own pages and its small JSON API. The routes for callbacks come with the extension.

There is no login, because this is an example on a loopback address. Your application will want to know who clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from sqlalchemy import select
from werkzeug.wrappers import Response

from . import review
from .extensions import db, webhook
from .models import AccountNote, Content, GenerationTask, PublishPoolEntry
from .tasks import AUDIENCE, REQUIREMENTS, account_named, create_task, has_creator, submit_task

pages = Blueprint("pages", __name__)
api = Blueprint("hub_api", __name__)

DECISIONS = {"approve": review.approve, "reject": review.reject}
ACCOUNT = "Tech Weekly"
"""The account of a task that names none."""
SHOWN = 50
"""The greatest number of rows in a list."""
BRIEF = 8
"""The number of rows in each list of the page; a link shows the others."""


def is_at_this_machine() -> bool:
    """Permit the webhook history to this machine only. An app with users checks the user's permission instead."""
    return request.remote_addr in {"127.0.0.1", "::1"}


# --- the pages -----------------------------------------------------------------------------------------------


@pages.get("/")
def hub() -> str:
    lists = {
        "contents": latest(Content),
        "pool": pool(),
        "tasks": latest(GenerationTask),
        "notes": latest(AccountNote),
    }
    whole = request.args.get("all", "")
    return render_template(
        "hub.html",
        has_creator=has_creator(),
        account=ACCOUNT,
        requirements=REQUIREMENTS,
        audience=AUDIENCE,
        **{name: rows if name == whole else rows[:BRIEF] for name, rows in lists.items()},
        cut={name: len(rows) for name, rows in lists.items() if name != whole and len(rows) > BRIEF},
    )


@pages.post("/tasks")
def order() -> Response:
    new_task(request.form)
    return redirect(url_for("pages.hub"), 303)


@pages.post("/contents/<int:content_id>/<any(approve, reject):decision>")
def decide(content_id: int, decision: str) -> Response:
    decided(DECISIONS[decision], content_id)
    return redirect(url_for("pages.hub"), 303)


@pages.post("/pool/<int:entry_id>/publish")
def publish(entry_id: int) -> Response:
    decided(review.publish, entry_id)
    return redirect(url_for("pages.hub"), 303)


# --- the API -------------------------------------------------------------------------------------------------


@api.get("/tasks")
def list_tasks() -> list[dict[str, Any]]:
    return [task_json(task) for task in latest(GenerationTask)]


@api.post("/tasks")
def order_by_json() -> tuple[dict[str, Any], int]:
    body = request.get_json()
    return task_json(new_task(body if isinstance(body, dict) else {})), 201


@api.get("/contents")
def list_contents() -> list[dict[str, Any]]:
    return [content_json(content) for content in latest(Content)]


@api.post("/contents/<int:content_id>/<any(approve, reject):decision>")
def decide_by_json(content_id: int, decision: str) -> dict[str, Any]:
    return content_json(decided(DECISIONS[decision], content_id))


@api.get("/pool")
def list_pool() -> list[dict[str, Any]]:
    return [{"id": entry.id, "added_at": entry.added_at, "content": content_json(entry.content)} for entry in pool()]


@api.post("/pool/<int:entry_id>/publish")
def publish_by_json(entry_id: int) -> dict[str, Any]:
    return content_json(decided(review.publish, entry_id))


# --- what both share -----------------------------------------------------------------------------------------


def latest(model: Any) -> Sequence[Any]:
    return db.session.scalars(select(model).order_by(model.id.desc()).limit(SHOWN)).all()


def pool() -> Sequence[PublishPoolEntry]:
    """Return the contents waiting to be published, oldest first."""
    waiting = select(PublishPoolEntry).where(PublishPoolEntry.published_at.is_(None)).order_by(PublishPoolEntry.id)
    return db.session.scalars(waiting.limit(SHOWN)).all()


def new_task(fields: Any) -> GenerationTask:
    """Order a task from the creator; if there is none, add a task that anyone with its URL may complete."""
    topic = text_of(fields, "topic", 500)
    if not topic:
        abort(400, "A task needs a `topic`.")
    account = account_named(text_of(fields, "account", 100) or ACCOUNT)
    # Without WEBHOOK_CALLBACK_BASE_URL, this request tells our address, which is good enough on one machine.
    base_url = None if webhook.settings.callback_base_url else request.url_root
    auto_approve = fields.get("auto_approve") in {True, "on", "true"}
    if not has_creator():
        task = create_task(account, topic, base_url=base_url, auto_approve=auto_approve)
        db.session.commit()
        return task
    return submit_task(
        account,
        topic,
        requirements=text_of(fields, "requirements", 2000),
        target_audience=text_of(fields, "target_audience", 500),
        base_url=base_url,
        auto_approve=auto_approve,
    )


def text_of(fields: Any, name: str, longest: int) -> str:
    return str(fields.get(name) or "").strip()[:longest]


def decided(decide: Any, row_id: int) -> Content:
    try:
        content: Content = decide(row_id)
    except review.AlreadyDecidedError:
        abort(409, "There is nothing to decide: the content does not exist, or someone else has already decided.")
    return content


def task_json(task: GenerationTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "topic": task.topic,
        "status": task.status,
        "attempt": task.attempt,
        "progress": task.progress_percentage,
        "error": task.error_message,
        "auto_approve": task.auto_approve,
        "callback_url": task.callback_url,
    }


def content_json(content: Content) -> dict[str, Any]:
    return {
        "id": content.id,
        "task_id": content.task_id,
        "title": content.title,
        "quality_score": content.quality_score,
        "word_count": content.word_count,
        "images": len(content.images),
        "review_status": content.review_status,
    }
