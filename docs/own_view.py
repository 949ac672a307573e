"""A view of one's own, for a sender that neither speaks our format nor belongs to a creator's class."""

# ruff: noqa: D103 - the module says it
from typing import Any

from flask import Flask, request

from flask_contenthub_webhook import ContentHubWebhook, WebhookHandler
from flask_contenthub_webhook.errors import RequestRefused


def add_press_view(app: Flask, webhook: ContentHubWebhook) -> None:
    @app.post("/press/<task_id>")
    def press_says(task_id: str) -> tuple[dict[str, Any], int]:
        try:
            attempt = webhook.check_token(task_id, request.args)  # before anything of the request is believed
            event = {"result": {"content": request.get_json()["text"]}}
            outcome = WebhookHandler().handle_task_completed(task_id, event, attempt=attempt)
        except RequestRefused as refusal:
            return {"error": refusal.message}, refusal.status
        return {"outcome": outcome.verdict}, 200
