"""ElevenLabs: transcripts, full webhooks to the workspace's URL (``/callbacks/<name>``), signed with ``t=,v0=``."""

import hashlib
import hmac
import json
import time

import httpx

from flask_contenthub_webhook.creators import RemoteState, Report, UnknownJob, service_errors
from flask_contenthub_webhook.errors import CreatorRefused, SignatureInvalid

PATH, MAX_AGE = "/v1/speech-to-text", 1800


class ElevenLabsTranscripts:
    def __init__(self, api_key, *, webhook_secret, base_url="https://api.elevenlabs.io"):
        self._http = httpx.Client(base_url=base_url, headers={"xi-api-key": api_key}, timeout=30)
        self._secret = webhook_secret.encode()

    def submit(self, job, *, wait):
        ours = {"webhook": "true", "webhook_metadata": json.dumps({"task_id": job.task_id})}
        with service_errors():
            said = self._http.post(PATH, data={**job.options, **ours}).raise_for_status().json()
        return Report(state=RemoteState.OPEN, creator_task_id=said["transcription_id"])

    def status(self, creator_task_id):
        try:
            with service_errors():
                said = self._http.get(f"{PATH}/transcripts/{creator_task_id}").raise_for_status().json()
        except UnknownJob:  # not transcribed yet, or not there: ElevenLabs does not say which
            return Report(state=RemoteState.OPEN)
        return Report(state=RemoteState.COMPLETED, result={"content": said["text"], "raw": said})

    result = status

    def statuses(self, creator_task_ids, *, since=None):
        return {}

    def cancel(self, creator_task_id):
        raise CreatorRefused("ElevenLabs has no call that stops a transcript.")

    def verify_callback(self, callback):
        timestamp, _, signature = callback.headers["ElevenLabs-Signature"].removeprefix("t=").partition(",v0=")
        expected = hmac.new(self._secret, f"{timestamp}.".encode() + callback.body, hashlib.sha256).hexdigest()
        if time.time() - int(timestamp) > MAX_AGE or not hmac.compare_digest(expected.encode(), signature.encode()):
            raise SignatureInvalid

    def read_callback(self, callback):
        data = json.loads(callback.body)["data"]
        said, task_id = data.get("transcription"), (data.get("webhook_metadata") or {}).get("task_id")
        state, result = ("failed", None) if said is None else ("completed", {"content": said["text"], "raw": said})
        names = {"creator_task_id": data["transcription_id"], "task_id": task_id}
        return Report(state=RemoteState(state), result=result, error=data.get("error", {"message": state}), **names)
