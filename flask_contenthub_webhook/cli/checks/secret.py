"""The secrets: set, long enough, and hard to guess."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from ...core.signatures import SCHEMES
from .findings import DoctorContext, Finding, check, fail, ok, warn

__all__ = ["check_secrets"]

_SHORTEST = 32
_FEWEST_BITS = 90
_PLACEHOLDERS = (
    *("change-me", "changeme", "change_me", "your-secret", "your_secret"),
    *("example", "placeholder", "password"),
)
_GENERATE = "Generate one with `flask webhook secret` and set WEBHOOK_SECRET_KEY"


@check("secret")
def check_secrets(context: DoctorContext) -> list[Finding]:
    """Check each secret, without showing it."""
    settings = context.state.settings
    if not settings.enabled:
        return []
    if not settings.secrets:
        message = "WEBHOOK_SECRET_KEY is not set: anyone who can reach the callback URL can complete tasks."
        return [fail(message, f"{_GENERATE} to it, the same for every process.")]
    total = len(settings.secrets)
    subject = "The secret is" if total == 1 else f"All {total} secrets are"
    findings = list(_problems(settings.secrets, settings.signature_schemes))
    return findings or [ok(f"{subject} long and random enough.")]


def _problems(secrets: Sequence[str], schemes: Sequence[str]) -> Iterator[Finding]:
    for number, secret in enumerate(secrets, 1):
        which = "The secret" if len(secrets) == 1 else f"Secret {number} of {len(secrets)}"
        if problem := _weakness(secret):
            yield fail(f"{which} in WEBHOOK_SECRET_KEY {problem}.", f"{_GENERATE}{_keep_old(number)}.")
            continue
        for name in schemes:
            if not SCHEMES[name].accepts(secret):
                yield warn(
                    f"{which} in WEBHOOK_SECRET_KEY does not suit the scheme {name}, which needs "
                    f"{SCHEMES[name].key_form}.",
                    f"{_GENERATE}{_keep_old(number)}, or leave {name} out of WEBHOOK_SIGNATURE_SCHEMES.",
                )


def _keep_old(number: int) -> str:
    if number > 1:
        return ", or remove this old one once no open task was submitted with it"
    return " to it, followed by a comma and the old one until the tasks that are open now have ended"


def _weakness(secret: str) -> str:
    """Describe what makes a secret easy to guess; empty if nothing does."""
    if len(secret) < _SHORTEST:
        return f"has {len(secret)} characters; at least {_SHORTEST} random ones are needed"
    if any(word in secret.lower() for word in _PLACEHOLDERS):
        return "looks like a placeholder from documentation"
    unit = secret[: (secret + secret).find(secret, 1)]  # the repeated part, or all of it
    counts = Counter(unit)
    bits = -sum(count * math.log2(count / len(unit)) for count in counts.values())
    if bits < _FEWEST_BITS:
        return "is long, but repeats itself so much that it can be guessed"
    return ""
