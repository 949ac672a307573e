"""The client certificate of a request: find it, and check it against the accepted ones.

The server or proxy that ends the TLS connection has verified the chain; this module only decides which of the verified
certificates are accepted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import ssl
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import ConfigurationError

__all__ = ["check_certificate_support", "is_admitted", "presented_certificate"]

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


def presented_certificate(environ: Mapping[str, Any], *, proxy_is_trusted: bool) -> bytes | None:
    """Return the certificate of which the client proved to have the key, as DER.

    Args:
        environ: the WSGI environment. Searched in this order: the TLS socket that gunicorn and Werkzeug pass on,
            ``SSL_CLIENT_CERT`` (PEM) of mod_wsgi and uWSGI, and the ``Client-Cert`` header (RFC 9440).
        proxy_is_trusted: True if the peer is a proxy whose ``Client-Cert`` header is trusted; any other client could
            set it to anything.

    Returns:
        The certificate, or None if there is no trustworthy one.
    """
    for name in _SOCKETS:
        connection = environ.get(name)
        if isinstance(connection, ssl.SSLSocket) and (der := connection.getpeercert(binary_form=True)):
            return der
    if environ.get("SSL_CLIENT_VERIFY", "SUCCESS") == "SUCCESS" and (pem := environ.get("SSL_CLIENT_CERT")):
        return _from_pem(str(pem))
    if proxy_is_trusted and (header := environ.get("HTTP_CLIENT_CERT")):
        return _from_rfc9440(str(header))
    return None


def is_admitted(certificate: bytes, admitted: Collection[str]) -> bool:
    """Return True if WEBHOOK_CLIENT_CERTS accepts a certificate.

    Args:
        certificate: DER.
        admitted: ``any``, ``sha256:FINGERPRINT``, ``dns:NAME`` or ``cn:NAME``, in lower case.
    """
    if "any" in admitted or f"sha256:{hashlib.sha256(certificate).hexdigest()}" in admitted:
        return True
    if any(_needs_parsing(item) for item in admitted):
        return not _names(certificate).isdisjoint(admitted)
    return False


def check_certificate_support(admitted: Collection[str]) -> None:
    """Refuse to start if names are configured that no installed package can read.

    Raises:
        ConfigurationError: names the extra to install.
    """
    if any(_needs_parsing(item) for item in admitted) and importlib.util.find_spec("cryptography") is None:
        raise ConfigurationError(
            "WEBHOOK_CLIENT_CERTS with dns: or cn: needs cryptography: pip install 'flask-contenthub-webhook[mtls]'; "
            "sha256: fingerprints work without."
        )


def _needs_parsing(item: str) -> bool:
    return item.startswith(("dns:", "cn:"))


def _names(certificate: bytes) -> set[str]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_der_x509_certificate(certificate)
        common = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        extensions = parsed.extensions
    except ValueError:
        return set()
    names = {f"cn:{str(attribute.value).lower()}" for attribute in common}
    try:
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    return names | {f"dns:{name.lower()}" for name in alternatives.get_values_for_type(x509.DNSName)}


def _from_pem(pem: str) -> bytes | None:
    try:
        return ssl.PEM_cert_to_DER_cert(pem.strip()) or None
    except (ValueError, binascii.Error):
        return None


def _from_rfc9440(header: str) -> bytes | None:
    """Decode a structured-field byte sequence: base64 between colons."""
    value = header.strip()
    if not (value.startswith(":") and value.endswith(":")):
        return None
    try:
        return base64.b64decode(value[1:-1], validate=True) or None
    except (ValueError, binascii.Error):
        return None
