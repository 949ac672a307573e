"""Gemini: background interactions, thin webhooks to the task's own URL, a JWT in RS256."""

import json

import httpx
import jwt

from flask_contenthub_webhook.creators import RemoteState, Report, UnknownJob, service_errors

STATES = {"queued": "open", "in_progress": "open", "requires_action": "open", "incomplete": "failed"}


class GeminiInteractions:
    def __init__(self, api_key, *, audience, base_url="https://generativelanguage.googleapis.com"):
        self._http = httpx.Client(base_url=f"{base_url}/v1beta", headers={"x-goog-api-key": api_key}, timeout=30)
        self._keys, self._audience = jwt.PyJWKClient(f"{base_url}/.well-known/jwks.json", timeout=10), audience

    def submit(self, job, *, wait):
        ours = {"background": True, "webhook_config": {"uris": [job.callback_url]}}
        return self._call("POST", "/interactions", {"input": job.prompt, **job.options, **ours})

    def status(self, creator_task_id):
        try:
            return self._call("GET", f"/interactions/{creator_task_id}")
        except UnknownJob:
            return Report(state=RemoteState.MISSING)

    result = status

    def statuses(self, creator_task_ids, *, since=None):
        return {}

    def cancel(self, creator_task_id):
        self._call("POST", f"/interactions/{creator_task_id}/cancel")

    def verify_callback(self, callback):
        with service_errors():  # the keys are fetched
            key = self._keys.get_signing_key_from_jwt(token := callback.headers["Webhook-Signature"])
        jwt.decode(token, key, algorithms=["RS256"], audience=self._audience)
        return callback.headers["Webhook-Id"]

    def read_callback(self, callback):  # the token does not cover the body: only what Gemini says when asked counts
        return self.status(json.loads(callback.body)["data"]["id"])

    def _call(self, method, path, body=None):
        with service_errors():
            said = self._http.request(method, path, json=body).raise_for_status().json()
        text = "".join(part.get("text", "") for step in said.get("steps", []) for part in step.get("content", []))
        return Report(
            state=RemoteState(STATES.get(said["status"], said["status"])),
            result={"content": text, "raw": said},
            error=(said.get("errors") or [{"message": said["status"]}])[0],
            raw=json.dumps(said).encode(),
            creator_task_id=said["id"],
        )
