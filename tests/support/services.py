"""The seven services of the documentation: the fake, the creator and the options of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask_contenthub_webhook.contrib.fal import FalQueue
from flask_contenthub_webhook.contrib.openai import OpenAIResponses
from flask_contenthub_webhook.contrib.replicate import ReplicatePredictions
from flask_contenthub_webhook.creators import Creator
from flask_contenthub_webhook.testing.services import (
    FakeAssemblyAI,
    FakeElevenLabs,
    FakeFal,
    FakeGemini,
    FakeOpenAI,
    FakeReplicate,
    FakeRunPod,
    FakeService,
)

from .processes import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "docs" / "services"


def example(name: str, path: Path = EXAMPLES) -> Any:
    """Import an example of the documentation."""
    spec = importlib.util.spec_from_file_location(f"docs_services_{name}", path / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _example(name: str, kind: str, **values: Any) -> Callable[[Any], Any]:
    def make(fake: Any) -> Any:
        given = {key: value(fake) for key, value in values.items()}
        creator = getattr(example(name), kind)("key", base_url=fake.base_url, **given)
        fake.closing(creator._http.close)
        return creator

    return make


@dataclass(frozen=True)
class Service:
    """One of them.

    Args:
        name: its name in ``Creators``.
        fake: its fake.
        make: makes the creator for a fake.
        options: of a submission.
        has_one_url: True if its webhooks go to one URL for all tasks.
        reads: the file of the creator, for the count of its lines.
    """

    name: str
    fake: type[FakeService]
    make: Callable[[Any], Creator]
    options: Mapping[str, Any] = field(default_factory=dict)
    has_one_url: bool = False


SERVICES = {
    service.name: service
    for service in (
        Service(
            "openai",
            FakeOpenAI,
            lambda fake: OpenAIResponses(fake.client(), webhook_secret=fake.webhook_secret),
            {"model": "gpt-5"},
            has_one_url=True,
        ),
        Service(
            "replicate",
            FakeReplicate,
            lambda fake: ReplicatePredictions(fake.client(), webhook_secret=fake.webhook_secret),
            {"model": "meta/llama"},
        ),
        Service(
            "fal",
            FakeFal,
            lambda fake: FalQueue(fake.client(), keys=fake.jwks_url),
            {"application": "fal-ai/any-llm"},
        ),
        Service(
            "gemini",
            FakeGemini,
            _example("gemini", "GeminiInteractions", audience=lambda fake: fake.audience),
            {"model": "gemini-3-flash-preview"},
        ),
        Service(
            "assemblyai",
            FakeAssemblyAI,
            _example("assemblyai", "AssemblyAITranscripts", webhook_secret=lambda fake: fake.secret),
            {"audio_url": "https://audio.example/1.mp3"},
        ),
        Service("runpod", FakeRunPod, _example("runpod", "RunPodJobs", endpoint=lambda _: "fake-endpoint")),
        Service(
            "elevenlabs",
            FakeElevenLabs,
            _example("elevenlabs", "ElevenLabsTranscripts", webhook_secret=lambda fake: fake.secret),
            {"model_id": "scribe_v2", "source_url": "https://audio.example/1.mp3"},
            has_one_url=True,
        ),
    )
}
