"""Block connections to addresses that are not public (SSRF guard).

The lists follow IANA's registries of special-purpose addresses; ``ipaddress`` differs between versions of Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["Network", "reason_against"]

Network = IPv4Network | IPv6Network

_INTERNAL_V4 = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "the platform service of a cloud"),  # Azure's, in the midst of public ones
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)

_PUBLIC_V6 = IPv6Network("2000::/3")
_INTERNAL_V6 = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        # within the public ones:
        ("2001::/32", "a Teredo tunnel"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a 6to4 tunnel"),
        ("3fff::/20", "for documentation"),
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")


def reason_against(address: str, allowed: Iterable[Network]) -> str | None:
    """Return the reason not to connect to an address, or None; ``allowed`` networks need not be public."""
    networks = tuple(allowed)
    parsed = ip_address(address)
    if any(parsed in network for network in networks):
        return None
    if isinstance(parsed, IPv6Address) and (carried := _carried(parsed)) is not None:
        return reason_against(str(carried), networks)
    special = _INTERNAL_V4 if isinstance(parsed, IPv4Address) else _INTERNAL_V6
    for network, what in special:
        if parsed in network:
            return what
    if isinstance(parsed, IPv6Address) and parsed not in _PUBLIC_V6:
        return "not a public one"
    return None


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to this one reach; tunnels that carry others are refused as a whole."""
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
