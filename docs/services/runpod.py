"""RunPod: serverless jobs, full webhooks to the task's own URL, whose token is all that proves them."""

import json

import httpx

from flask_contenthub_webhook.creators import RemoteState, Report, UnknownJob, service_errors

STATES = {"IN_QUEUE": "open", "IN_PROGRESS": "open", "TIMED_OUT": "failed"}


class RunPodJobs:
    def __init__(self, api_key, *, endpoint, base_url="https://api.runpod.ai"):
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=f"{base_url}/v2/{endpoint}", headers=headers, timeout=30)

    def submit(self, job, *, wait):
        return self._call("POST", "/run", {"input": {"prompt": job.prompt}, **job.options, "webhook": job.callback_url})

    def status(self, creator_task_id):
        try:
            return self._call("GET", f"/status/{creator_task_id}")
        except UnknownJob:
            return Report(state=RemoteState.MISSING)

    result = status

    def statuses(self, creator_task_ids, *, since=None):
        return {}

    def cancel(self, creator_task_id):
        self._call("POST", f"/cancel/{creator_task_id}")

    def read_callback(self, callback):
        return self._report(json.loads(callback.body))

    def _call(self, method, path, body=None):
        with service_errors():
            return self._report(self._http.request(method, path, json=body).raise_for_status().json())

    def _report(self, said):
        output = said.get("output")
        return Report(
            state=RemoteState(STATES.get(said["status"], said["status"].lower())),
            result={"content": output.get("text") if isinstance(output, dict) else output, "raw": said},
            error={"message": str(said.get("error", said["status"]))},
            raw=json.dumps(said).encode(),
            creator_task_id=said["id"],
        )
