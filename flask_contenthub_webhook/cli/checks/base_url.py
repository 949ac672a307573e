"""The address that is handed to the creator, as it stands; whether it works is another check."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from .findings import Examination, Finding, Level

__all__ = ["check_base_url"]

_SET_IT = "Set WEBHOOK_CALLBACK_BASE_URL to the https address under which the creator reaches this app"
_EXAMPLE = f"{_SET_IT}, for example https://hub.example.com."


def check_base_url(examination: Examination) -> list[Finding]:
    """Present, not this very machine, https; in debug mode the last two are only warned about."""
    settings = examination.state.settings
    url = settings.callback_base_url
    if not settings.enabled:
        return []
    if url is None:
        return [
            Finding(
                "base URL",
                Level.FAIL,
                "WEBHOOK_CALLBACK_BASE_URL is not set: the creator cannot be told where to call back.",
                _EXAMPLE,
            )
        ]
    weak = Level.WARN if examination.state.app.debug else Level.FAIL
    parts = urlsplit(url)
    findings = []
    if _is_this_machine(parts.hostname or ""):
        findings.append(
            Finding(
                "base URL",
                weak,
                f"WEBHOOK_CALLBACK_BASE_URL is {url}, which points at localhost: a creator on another machine cannot "
                "call back.",
                _EXAMPLE,
            )
        )
    if parts.scheme == "http":
        findings.append(
            Finding(
                "base URL",
                weak,
                f"WEBHOOK_CALLBACK_BASE_URL is {url}, plain http: the token in each callback URL and all content can "
                "be read on the way.",
                f"{_SET_IT}, behind a reverse proxy with a certificate.",
            )
        )
    if settings.url_prefix and parts.path.rstrip("/").endswith(settings.url_prefix):
        findings.append(
            Finding(
                "base URL",
                Level.FAIL,
                f"WEBHOOK_CALLBACK_BASE_URL ends in {settings.url_prefix}, which WEBHOOK_URL_PREFIX appends once more.",
                "Leave the prefix out of WEBHOOK_CALLBACK_BASE_URL.",
            )
        )
    return findings or [Finding("base URL", Level.OK, f"The creator is told to call back at {url}.")]


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
