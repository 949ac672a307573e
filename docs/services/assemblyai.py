"""AssemblyAI: transcripts, thin webhooks to the task's own URL, a header with a value of our choice."""

import hmac
import json

import httpx

from flask_contenthub_webhook.creators import RemoteState, Report, UnknownJob, service_errors
from flask_contenthub_webhook.errors import CreatorRefused, SignatureInvalid

HEADER = "X-Hub-Token"
STATES = {"queued": "open", "processing": "open", "error": "failed"}


class AssemblyAITranscripts:
    def __init__(self, api_key, *, webhook_secret, base_url="https://api.assemblyai.com"):
        self._http = httpx.Client(base_url=base_url, headers={"Authorization": api_key}, timeout=30)
        self._secret = webhook_secret

    def submit(self, job, *, wait):
        hook = {"webhook_url": job.callback_url, "webhook_auth_header_name": HEADER}
        return self._call("POST", "/v2/transcript", {**job.options, **hook, "webhook_auth_header_value": self._secret})

    def status(self, creator_task_id):
        try:
            return self._call("GET", f"/v2/transcript/{creator_task_id}")
        except UnknownJob:
            return Report(state=RemoteState.MISSING)

    result = status

    def statuses(self, creator_task_ids, *, since=None):
        return {}

    def cancel(self, creator_task_id):
        raise CreatorRefused("AssemblyAI has no call that stops a transcript.")

    def verify_callback(self, callback):
        if not hmac.compare_digest(callback.headers.get(HEADER, "").encode(), self._secret.encode()):
            raise SignatureInvalid

    def read_callback(self, callback):  # it says only that the transcript has ended
        return self.status(json.loads(callback.body)["transcript_id"])

    def _call(self, method, path, body=None):
        with service_errors():
            said = self._http.request(method, path, json=body).raise_for_status().json()
        return Report(
            state=RemoteState(STATES.get(said["status"], said["status"])),
            result={"content": said["text"], "raw": said},
            error={"message": said["error"] or "no words"},
            raw=json.dumps(said).encode(),
            creator_task_id=said["id"],
        )
