"""Paid services on loopback, one for each adapter and each example of the documentation, signing as the real ones do.

Each keeps the jobs that it runs, and what it was asked. None does any work: a test says how a job ends, and when its
webhook is sent::

    with FakeReplicate() as service:
        creator = ReplicatePredictions(service.client(), webhook_secret=service.webhook_secret)
        ...  # the host submits a task
        service.message(service.complete(service.last, "# Tea")).send()
        assert len(service.jobs) == 1
"""

from __future__ import annotations

from .assemblyai import FakeAssemblyAI
from .elevenlabs import FakeElevenLabs
from .fal import FakeFal
from .gemini import FakeGemini
from .openai import FakeOpenAI
from .replicate import FakeReplicate
from .runpod import FakeRunPod
from .service import FakeService, Message, PaidJob

__all__ = [
    "FakeAssemblyAI",
    "FakeElevenLabs",
    "FakeFal",
    "FakeGemini",
    "FakeOpenAI",
    "FakeReplicate",
    "FakeRunPod",
    "FakeService",
    "Message",
    "PaidJob",
]
