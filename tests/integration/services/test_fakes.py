"""The fake services, looked at by the services' own SDKs: clients, types, and the verification of webhooks."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import assemblyai
import assemblyai.api
import elevenlabs
import elevenlabs.core
import fal_client
import httpx
import jwt
import openai
import pytest
import replicate.exceptions
import replicate.webhook
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fal_client.client import FalClientHTTPError
from google import genai
from standardwebhooks import Webhook, WebhookVerificationError

from flask_contenthub_webhook.testing.services import (
    FakeAssemblyAI,
    FakeElevenLabs,
    FakeFal,
    FakeGemini,
    FakeOpenAI,
    FakeReplicate,
    FakeRunPod,
    FakeService,
    Message,
)

URL = "https://hub.example/callback/1?attempt=1&token=abcdefgh"
KINDS = [FakeOpenAI, FakeReplicate, FakeFal, FakeGemini, FakeAssemblyAI, FakeRunPod, FakeElevenLabs]


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[FakeService]:
    with request.param(webhook_url=URL) as running:
        yield running


def on(*kinds: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", kinds, indirect=True, ids=lambda kind: kind.__name__)


def text(message: Message) -> str:
    return message.body.decode()


@on(FakeOpenAI)
def test_openai_runs_background_responses(service):
    client = service.client()
    made = client.responses.create(model="gpt-5", input="Tea", background=True, metadata={"task_id": "7"})
    assert (made.status, made.metadata) == ("in_progress", {"task_id": "7"})

    event = client.webhooks.unwrap(
        (message := service.message(service.complete(service.last, "# Tea"))).body, message.headers
    )
    assert (type(event).__name__, event.data.id) == ("ResponseCompletedWebhookEvent", made.id)
    assert client.responses.retrieve(event.data.id).output_text == "# Tea"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap((forged := service.message(service.last, forged=True)).body, forged.headers)

    service.fail(service.last, "overloaded")
    failed = client.responses.retrieve(made.id)
    assert (failed.status, failed.error.message) == ("failed", "overloaded")
    client.responses.create(model="gpt-5", input="Tea", background=True)
    assert client.responses.cancel(service.last.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none")
    with pytest.raises(openai.BadRequestError, match="model"):
        client.responses.create(input="Tea", background=True)


@on(FakeOpenAI)
def test_openai_runs_batches(service):
    client = service.client()
    asked = {"completion_window": "24h", "endpoint": "/v1/responses", "input_file_id": "file-in"}
    assert client.batches.create(**asked).status == "in_progress"
    message = service.message(service.complete(service.last, "out"))
    event = client.webhooks.unwrap(message.body, message.headers)
    assert event.type == "batch.completed"
    assert client.batches.retrieve(event.data.id).output_file_id == "file-out"
    service.fail(service.last, "bad line")
    assert client.batches.retrieve(service.last.id).errors.data[0].message == "bad line"


@on(FakeReplicate)
def test_replicate_runs_predictions(service):
    client = service.client()
    made = client.predictions.create(version="v", input={"prompt": "Tea"}, webhook=URL, wait=1)
    assert made.status == "processing"
    client.models.predictions.create(model="owner/model", input={"prompt": "Tea"})
    assert [found.id for found in client.predictions.list()] == [service.last.id, made.id]

    message = service.message(service.complete(service.jobs[made.id], "# Tea"))
    secret = client.webhooks.default.secret()
    assert secret.key == service.webhook_secret
    replicate.webhook.Webhooks.validate(headers=dict(message.headers), body=text(message), secret=secret, tolerance=60)
    assert (message.url, json.loads(message.body)["output"]) == (URL, "# Tea")
    forged = service.message(service.jobs[made.id], forged=True)
    with pytest.raises(replicate.webhook.InvalidSignatureError):
        replicate.webhook.Webhooks.validate(headers=dict(forged.headers), body=text(forged), secret=secret)

    service.fail(service.last, "CUDA out of memory")
    assert client.predictions.get(service.last.id).error == "CUDA out of memory"
    with pytest.raises(replicate.exceptions.ReplicateError):
        client.predictions.get("none")


@on(FakeOpenAI, FakeReplicate)
def test_standard_webhooks_agree(service):
    if isinstance(service, FakeOpenAI):
        service.client().responses.create(model="gpt-5", input="Tea", background=True)
    else:
        service.client().predictions.create(version="v", input={}, wait=1)
    message = service.message(service.complete(service.last))
    assert Webhook(service.webhook_secret).verify(message.body, dict(message.headers)) == json.loads(message.body)
    forged = service.message(service.last, forged=True)
    with pytest.raises(WebhookVerificationError):
        Webhook(service.webhook_secret).verify(forged.body, dict(forged.headers))


@on(FakeFal)
def test_fal_has_a_queue(service):
    client = service.client()
    handle = client.submit("fal-ai/flux/dev", {"prompt": "Tea"}, webhook_url=URL)
    assert isinstance(client.status("fal-ai/flux/dev", handle.request_id), fal_client.InProgress)
    assert (service.last.callback_url, service.last.asked) == (URL, {"prompt": "Tea"})

    service.complete(service.last, "# Tea")
    assert client.result("fal-ai/flux/dev", handle.request_id) == {"output": "# Tea"}
    assert json.loads(service.message(service.last).body)["payload"] == {"output": "# Tea"}
    service.last.broken = True
    assert json.loads(service.message(service.last).body)["payload"] is None

    service.fail(service.last, "NSFW")
    assert client.status("fal-ai/flux/dev", handle.request_id).error == "NSFW"
    with pytest.raises(FalClientHTTPError, match="NSFW"):
        client.result("fal-ai/flux/dev", handle.request_id)
    client.submit("fal-ai/flux", {})
    client.cancel("fal-ai/flux", service.last.id)
    assert service.last.state == "cancelled"


@on(FakeFal)
def test_fal_signs_as_its_recipe_verifies(service):
    def verify(message: Message) -> None:
        """The recipe that fal publishes, with another library for Ed25519."""
        headers = httpx.Headers(dict(message.headers))
        names = ("request-id", "user-id", "timestamp")
        signed = [headers[f"x-fal-webhook-{name}"] for name in names] + [hashlib.sha256(message.body).hexdigest()]
        assert abs(time.time() - int(headers["x-fal-webhook-timestamp"])) < 300
        (key,) = httpx.get(service.jwks_url).json()["keys"]
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=="))
        public.verify(bytes.fromhex(headers["x-fal-webhook-signature"]), "\n".join(signed).encode())

    service.client().submit("fal-ai/flux/dev", {}, webhook_url=URL)
    message = service.message(service.complete(service.last))
    verify(message)
    with pytest.raises(InvalidSignature):
        verify(service.message(service.last, forged=True))
    service.rotate()
    with pytest.raises(InvalidSignature):
        verify(message)


@on(FakeGemini)
def test_gemini_runs_interactions(service):
    client = genai.Client(api_key="fake", http_options={"base_url": service.base_url})
    made = client.interactions.create(
        model="gemini-3-flash-preview", input="Tea", background=True, webhook_config={"uris": [URL]}
    )
    assert (made.status, service.last.callback_url) == ("in_progress", URL)
    service.complete(service.last, "# Tea")
    assert client.interactions.get(made.id).output_text == "# Tea"

    def verify(message: Message) -> Any:
        token = message.headers["Webhook-Signature"]
        key = jwt.PyJWKClient(service.jwks_url).get_signing_key_from_jwt(token)
        return jwt.decode(token, key, algorithms=["RS256"], audience=service.audience)

    verify(message := service.message(service.last))
    assert json.loads(message.body)["data"] == {"id": made.id}
    with pytest.raises(jwt.InvalidSignatureError):
        verify(service.message(service.last, forged=True))
    service.fail(service.last, "quota")
    assert client.interactions.get(made.id).errors[0].message == "quota"


@on(FakeAssemblyAI)
def test_assemblyai_transcribes(service):
    client = httpx.Client(base_url=service.base_url, headers={"Authorization": "key"})
    service.closing(client.close)
    asked = assemblyai.types.TranscriptRequest(
        audio_url="https://a.example/1.mp3",
        webhook_url=URL,
        webhook_auth_header_name="X-Token",
        webhook_auth_header_value="secret",
    )
    made = assemblyai.api.create_transcript(client, asked)
    assert made.status == "processing"
    service.complete(service.last, "tea")
    assert assemblyai.api.get_transcript(client, made.id).text == "tea"
    message = service.message(service.last)
    assert (message.url, message.headers) == (URL, {"X-Token": "secret"})
    assert service.message(service.last, forged=True).headers["X-Token"] != "secret"
    service.fail(service.last, "no audio")
    assert assemblyai.api.get_transcript(client, made.id).error == "no audio"


@on(FakeElevenLabs)
def test_elevenlabs_transcribes(service):
    http = httpx.Client()
    service.closing(http.close)
    client = elevenlabs.ElevenLabs(api_key="fake", base_url=service.base_url, httpx_client=http)
    made = client.speech_to_text.convert(
        model_id="scribe_v2", source_url="https://a.example/1.mp3", webhook=True, webhook_metadata={"task_id": "7"}
    )
    with pytest.raises(elevenlabs.core.ApiError, match="transcript_not_found"):
        client.speech_to_text.transcripts.get(made.transcription_id)
    service.complete(service.last, "tea")
    assert client.speech_to_text.transcripts.get(made.transcription_id).text == "tea"

    def verify(message: Message) -> Any:
        header = message.headers["ElevenLabs-Signature"]
        return client.webhooks.construct_event(text(message), header, service.secret)

    assert verify(service.message(service.last))["data"]["webhook_metadata"] == {"task_id": "7"}
    with pytest.raises(elevenlabs.BadRequestError):
        verify(service.message(service.last, forged=True))


@on(FakeRunPod)
def test_runpod_signs_nothing(service):
    client = httpx.Client(base_url=f"{service.base_url}/v2/endpoint", headers={"Authorization": "Bearer key"})
    service.closing(client.close)
    made = client.post("/run", json={"input": {"prompt": "Tea"}, "webhook": URL}).json()
    service.complete(service.last, "# Tea")
    message = service.message(service.last)
    assert json.loads(message.body) == client.get(f"/status/{made['id']}").json()
    assert (message.url, message.headers) == (URL, {})
    assert service.message(service.last, forged=True).url == URL.replace("abcd", "0000")


@on(*KINDS)
def test_every_service_counts_what_it_is_asked_and_can_be_away(service):
    service.away = 502
    answer = httpx.get(f"{service.base_url}/anything")
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html")
    assert (service.asked, service.jobs) == (["GET /anything"], {})


@on(FakeRunPod)
def test_a_connection_can_be_cut_before_or_after_a_job_was_started(service):
    headers = {"Authorization": "Bearer key"}
    for service.cut, jobs in (("before", 0), ("after", 1)):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{service.base_url}/v2/endpoint/run", json={"input": {}}, headers=headers)
        assert len(service.alive) == jobs
