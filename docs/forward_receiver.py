# ruff: noqa: D103 - the page around it says what it does
"""A receiver of forwarded events: verified by the package ``standardwebhooks``, each event taken once."""

import os

from flask import Flask, abort, request
from standardwebhooks import Webhook, WebhookVerificationError

app = Flask(__name__)
seen: set[str] = set()  # in earnest a table with a unique column, written together with the article
articles: dict[str, str] = {}


@app.post("/articles")
def receive() -> tuple[str, int]:
    try:
        # The secret is the WEBHOOK_FORWARD_SECRET of the app that sends.
        event = Webhook(os.environ["HUB_SECRET"]).verify(request.get_data(), dict(request.headers))
    except WebhookVerificationError:
        abort(401)
    if request.headers["webhook-id"] in seen:  # the answer was lost on its way, or somebody had it sent again
        return "", 204
    if event["event"] == "completed":
        articles[event["taskId"]] = event["result"]["content"]
    seen.add(request.headers["webhook-id"])
    return "", 204
