"""The form of the base URL; whether it works is another check."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from ...core.redaction import redacted_url
from ...creators.cli import CliCreator
from .findings import DoctorContext, Finding, check, fail, ok, warn

__all__ = ["check_base_url"]

_SET_IT = "Set WEBHOOK_CALLBACK_BASE_URL to the https address under which the service reaches this app"
_EXAMPLE = f"{_SET_IT}, for example https://hub.example.com."
_IN_PRODUCTION = f"In production: {_EXAMPLE[0].lower()}{_EXAMPLE[1:]}"


@check("base URL")
def check_base_url(context: DoctorContext) -> list[Finding]:
    """Check that it is set, leads from the service to this app, and is https; in debug mode, the last two only warn."""
    settings = context.state.settings
    if not settings.enabled:
        return []
    url = settings.callback_base_url
    if url is None:
        message = "WEBHOOK_CALLBACK_BASE_URL is not set: the service cannot be told where to call back."
        return [fail(message, _EXAMPLE)]
    findings = list(_problems(context, url))
    return findings or [ok(f"The service is told to call back at {redacted_url(url)}.")]


def _problems(context: DoctorContext, url: str) -> Iterator[Finding]:
    weak, parts, shown = warn if context.state.app.debug else fail, urlsplit(url), redacted_url(url)
    prefix = context.state.settings.url_prefix
    if _is_this_machine(parts.hostname or ""):
        says = f"WEBHOOK_CALLBACK_BASE_URL is {shown}, which points at localhost:"
        if all(_is_here(entry.creator) for entry in context.state.registry.entries):
            yield warn(f"{says} right on a laptop; a service on another machine cannot call back.", _IN_PRODUCTION)
        else:
            yield weak(f"{says} a service on another machine cannot call back.", _EXAMPLE)
    elif parts.scheme == "http":
        yield weak(
            f"WEBHOOK_CALLBACK_BASE_URL is {shown}, plain http: the token in each callback URL and all content can be "
            "read in transit.",
            f"{_SET_IT}, behind a reverse proxy with a certificate.",
        )
    if prefix and parts.path.rstrip("/").endswith(prefix):
        yield fail(
            f"WEBHOOK_CALLBACK_BASE_URL ends in {prefix}, which WEBHOOK_URL_PREFIX appends again.",
            "Leave the prefix out of WEBHOOK_CALLBACK_BASE_URL.",
        )


def _is_here(creator: object) -> bool:
    """Tell whether a service runs on this machine: a program, or an address of loopback."""
    return isinstance(creator, CliCreator) or _is_this_machine(urlsplit(getattr(creator, "address", "")).hostname or "")


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
