"""The body of a submission to content-creator."""

from __future__ import annotations

import json
from typing import Any

from ..errors import CreatorRefused
from .protocol import Job

__all__ = ["submission_body"]

_LARGEST_REQUEST = 10 * 1024 * 1024
_OURS = frozenset({"callbackUrl", "callbackEnabled", "callbackEvents", "idempotencyKey", "mode"})


def submission_body(job: Job, mode: str) -> bytes:
    """Build the submission, without ``type``, for which the creator accepts no value."""
    fields: dict[str, Any] = {
        "topic": job.topic,
        "requirements": job.requirements,
        "targetAudience": job.target_audience,
        "keywords": list(job.keywords) or None,
        "tone": job.tone,
        "priority": job.priority,
        "mode": mode,
        "idempotencyKey": job.creator_task_id,
    }
    options = {name: value for name, value in job.options.items() if name not in _OURS}
    if job.callback_url is not None:
        fields |= {
            "callbackUrl": job.callback_url,
            "callbackEnabled": True,
            "callbackEvents": list(job.callback_events) or None,
        }
    given = {name: value for part in (options, fields) for name, value in part.items() if value is not None}
    try:
        content = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CreatorRefused(f"The job cannot be written as JSON: {error}.", reason="INVALID_JOB") from None
    if len(content) > _LARGEST_REQUEST:
        raise CreatorRefused(
            f"The job is {len(content)} bytes long; the creator accepts {_LARGEST_REQUEST}.", reason="JOB_TOO_LARGE"
        )
    return content
