"""The configuration as a whole: misspelled keys, whether callbacks are accepted, and whether they must be signed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

from ...config.keys import OPTIONS
from ...creators import HttpCreator
from .findings import DoctorContext, Finding, check, fail, ok, warn

__all__ = ["check_enabled", "check_keys", "check_signatures"]

_PREFIXES = ("WEBHOOK_", "CREATOR_")


@check("configuration")
def check_keys(context: DoctorContext) -> Iterator[Finding]:
    """Look for misspelled keys; the app has started, so every value is valid."""
    known = [option.key for option in OPTIONS]
    present = {*context.state.app.config, *os.environ}
    unknown = sorted(key for key in present if key.startswith(_PREFIXES) and key not in known)
    for key in unknown:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        yield warn(
            f"{key} is set, but this extension has no such key, so it has no effect here.",
            f"Did you mean {close[0]}?" if close else "Remove it, unless something else reads it.",
        )
    if not unknown:
        yield ok("Every key is known and every value is valid.")


@check("enabled")
def check_enabled(context: DoctorContext) -> Iterator[Finding]:
    """Check WEBHOOK_ENABLED, without which every callback is answered with 404."""
    message = "WEBHOOK_ENABLED is off: every callback is refused with 404"
    if context.state.settings.enabled:
        yield ok("Callbacks are accepted (WEBHOOK_ENABLED).")
    elif context.state.creator is None:
        yield fail(f"{message}, and no service is polled.", "Set WEBHOOK_ENABLED=true.")
    else:
        remedy = "Set WEBHOOK_ENABLED=true, unless this is intended."
        yield warn(f"{message}; results arrive only by polling.", remedy)


@check("signature")
def check_signatures(context: DoctorContext) -> Iterator[Finding]:
    """Check whether unsigned callbacks are accepted, and whether content-creator's can be signed at all."""
    settings = context.state.settings
    if not settings.enabled:
        return
    if not settings.require_signature:
        is_guarded = bool(settings.client_certs or settings.allowed_ips)
        yield (warn if is_guarded else fail)(
            "WEBHOOK_REQUIRE_SIGNATURE is off: unsigned callbacks are accepted from "
            + ("the allowed addresses and certificates." if is_guarded else "anyone."),
            "Set WEBHOOK_REQUIRE_SIGNATURE=true. The results of tasks that were submitted without a token in their "
            "callback URL then arrive by polling.",
        )
    elif "url" not in settings.signature_schemes and any(
        isinstance(entry.creator, HttpCreator) for entry in context.state.registry.entries
    ):
        yield warn(
            "Callbacks must be signed, but WEBHOOK_SIGNATURE_SCHEMES leaves out url, and content-creator cannot sign "
            "otherwise: its callbacks are refused.",
            "Add url to WEBHOOK_SIGNATURE_SCHEMES, unless something in front of content-creator signs for it.",
        )
    else:
        yield ok(f"Callbacks must be signed; schemes: {', '.join(settings.signature_schemes)}.")
