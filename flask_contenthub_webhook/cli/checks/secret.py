"""The secrets: there, long enough, and not guessable."""

from __future__ import annotations

import math
from collections import Counter

from ...core.signatures import SCHEMES
from .findings import Examination, Finding, Level

__all__ = ["check_secrets"]

_SHORTEST = 32
_FEWEST_BITS = 90
_PLACEHOLDERS = (
    "change-me",
    "changeme",
    "change_me",
    "your-secret",
    "your_secret",
    "example",
    "placeholder",
    "password",
)
_MAKE_ONE = "Make one with `flask webhook secret` and set WEBHOOK_SECRET_KEY"


def check_secrets(examination: Examination) -> list[Finding]:
    """Every secret on its own; none is ever shown."""
    settings = examination.state.settings
    if not settings.enabled:
        return []
    if not settings.secrets:
        return [
            Finding(
                "secret",
                Level.FAIL,
                "WEBHOOK_SECRET_KEY is not set: anyone who can reach the callback URL can settle tasks.",
                f"{_MAKE_ONE} to it, the same for every process.",
            )
        ]
    many = len(settings.secrets)
    findings: list[Finding] = []
    for number, secret in enumerate(settings.secrets, 1):
        which = "The secret in WEBHOOK_SECRET_KEY" if many == 1 else f"Secret {number} of {many} in WEBHOOK_SECRET_KEY"
        if problem := _weakness(secret):
            findings.append(Finding("secret", Level.FAIL, f"{which} {problem}.", f"{_MAKE_ONE}{_keep_old(number)}."))
            continue
        findings += [
            Finding(
                "secret",
                Level.WARN,
                f"{which} does not suit the scheme {name}, which needs {SCHEMES[name].key_form}.",
                f"{_MAKE_ONE}{_keep_old(number)}, or leave {name} out of WEBHOOK_SIGNATURE_SCHEMES.",
            )
            for name in settings.signature_schemes
            if not SCHEMES[name].accepts(secret)
        ]
    if findings:
        return findings
    words = "The secret is" if many == 1 else f"All {many} secrets are"
    return [Finding("secret", Level.OK, f"{words} long and random enough.")]


def _keep_old(number: int) -> str:
    if number > 1:
        return ", or remove this old one once no open task was submitted with it"
    return " to it; the old one behind it, after a comma, until the tasks that are open now have ended"


def _weakness(secret: str) -> str:
    """What makes a secret guessable, or an empty text."""
    if len(secret) < _SHORTEST:
        return f"has {len(secret)} characters; at least {_SHORTEST} random ones are needed"
    if any(word in secret.lower() for word in _PLACEHOLDERS):
        return "looks like a placeholder out of a manual"
    unit = secret[: (secret + secret).find(secret, 1)]  # what it repeats, or the whole of it
    counts = Counter(unit)
    bits = -sum(count * math.log2(count / len(unit)) for count in counts.values())
    if bits < _FEWEST_BITS:
        return "is long, but repeats itself so much that it can be guessed"
    return ""
