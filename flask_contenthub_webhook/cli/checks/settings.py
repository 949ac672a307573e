"""The configuration as a whole: misspelled keys, whether callbacks are taken at all, whether they must be signed."""

from __future__ import annotations

import difflib
import os

from ...config.keys import OPTIONS
from ...creators import HttpCreator
from .findings import Examination, Finding, Level

__all__ = ["check_enabled", "check_keys", "check_signatures"]

_PREFIXES = ("WEBHOOK_", "CREATOR_")


def check_keys(examination: Examination) -> list[Finding]:
    """The application has started, so every value is valid; but a misspelled key goes unnoticed."""
    known = [option.key for option in OPTIONS]
    present = {*examination.state.app.config, *os.environ}
    unknown = sorted(key for key in present if key.startswith(_PREFIXES) and key not in known)
    if not unknown:
        return [Finding("configuration", Level.OK, "Every key is known and every value is valid.")]
    return [
        Finding(
            "configuration",
            Level.WARN,
            f"{key} is set, but this extension does not know it, so it has no effect here.",
            _suggestion(key, known),
        )
        for key in unknown
    ]


def _suggestion(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    return f"Is {close[0]} meant?" if close else "Remove it, unless something else reads it."


def check_enabled(examination: Examination) -> list[Finding]:
    """Without WEBHOOK_ENABLED every callback is answered with 404."""
    if examination.state.settings.enabled:
        return [Finding("enabled", Level.OK, "Callbacks are accepted (WEBHOOK_ENABLED).")]
    message = "WEBHOOK_ENABLED is off: every callback is refused with 404"
    if examination.state.creator is None:
        return [Finding("enabled", Level.FAIL, f"{message}, and no creator is polled.", "Set WEBHOOK_ENABLED=true.")]
    return [
        Finding(
            "enabled",
            Level.WARN,
            f"{message}; tasks are settled by polling alone.",
            "Set WEBHOOK_ENABLED=true, unless that is what you want.",
        )
    ]


def check_signatures(examination: Examination) -> list[Finding]:
    """Whether an unsigned callback is believed, and whether content-creator's can be signed at all."""
    settings = examination.state.settings
    if not settings.enabled:
        return []
    if not settings.require_signature:
        guarded = bool(settings.client_certs or settings.allowed_ips)
        return [
            Finding(
                "signature",
                Level.WARN if guarded else Level.FAIL,
                "WEBHOOK_REQUIRE_SIGNATURE is off: unsigned callbacks are believed, "
                + ("from the addresses and certificates that are let in." if guarded else "whoever sends them."),
                "Set WEBHOOK_REQUIRE_SIGNATURE=true. Tasks that were submitted without a token in their callback URL "
                "are then settled by polling.",
            )
        ]
    if "url" not in settings.signature_schemes and isinstance(examination.state.creator, HttpCreator):
        return [
            Finding(
                "signature",
                Level.WARN,
                "Callbacks must be signed, but WEBHOOK_SIGNATURE_SCHEMES leaves out url, and content-creator itself "
                "cannot sign: its callbacks are refused.",
                "Add url to WEBHOOK_SIGNATURE_SCHEMES, unless something in front of content-creator signs for it.",
            )
        ]
    schemes = ", ".join(settings.signature_schemes)
    return [Finding("signature", Level.OK, f"Callbacks must be signed; schemes: {schemes}.")]
