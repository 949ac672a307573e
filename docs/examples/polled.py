"""A service that calls nobody back."""

import httpx

from flask_contenthub_webhook.creators import RemoteState, Report, UnknownJob, service_errors


class PolledPress:
    callbacks = False  # nothing is posted to us: tasks get no callback URL
    poll_interval = 15  # seconds between two looks at an open task

    def __init__(self, base_url):
        self._http = httpx.Client(base_url=base_url, timeout=10)

    def submit(self, job, *, wait):
        with service_errors():
            answer = self._http.post("/jobs", json={"title": job.topic}, timeout=wait)
            said = answer.raise_for_status().json()
        return Report(state=RemoteState.OPEN, creator_task_id=said["id"])  # the service names the job

    def status(self, creator_task_id):
        try:
            with service_errors():
                said = self._http.get(f"/jobs/{creator_task_id}").raise_for_status().json()
        except UnknownJob:
            return Report(state=RemoteState.MISSING)
        return Report(state=RemoteState(said["state"]), result=said.get("result"))

    result = status

    def statuses(self, creator_task_ids, *, since=None):
        return {}

    def cancel(self, creator_task_id):
        with service_errors():
            self._http.delete(f"/jobs/{creator_task_id}").raise_for_status()
