"""Which addresses may be connected to."""

from __future__ import annotations

import ipaddress
import random

import pytest

from flask_contenthub_webhook.forwarding.addresses import reason_against


def networks(*names: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(name) for name in names]


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1"),
        *("223.255.255.254", "2606:4700:4700::1111", "2a00:1450::1", "2001:200::1", "::ffff:8.8.8.8"),
        "64:ff9b::808:808",
    ],
)
def test_public_ones_may(address: str):
    assert reason_against(address, []) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("169.254.169.254", "link-local"),
        ("100.64.0.1", "shared by a carrier's customers"),
        ("100.100.100.200", "shared by a carrier's customers"),
        ("192.0.0.192", "reserved"),
        ("168.63.129.16", "the platform service of a cloud"),
        ("198.18.0.1", "for benchmarks"),
        ("203.0.113.9", "for documentation"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "for documentation"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::127.0.0.1", "not a public one"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::a9fe:a9fe", "not a public one"),
        ("2002:7f00:1::", "a 6to4 tunnel"),
        ("2002:808:808::1", "a 6to4 tunnel"),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "a Teredo tunnel"),
        ("5f00::1", "not a public one"),
    ],
)
def test_others_may_not(address: str, reason: str):
    assert reason_against(address, []) == reason


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.0.0/16"),
        ("::ffff:10.1.2.3", "10.1.0.0/16"),
        ("64:ff9b::a01:203", "10.1.0.0/16"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("fd00::7", "fd00::/8"),
        ("2002:a01:203::", "2002::/16"),
    ],
)
def test_unless_they_are_allowed(address: str, network: str):
    assert reason_against(address, networks(network)) is None
    assert reason_against(address, networks("192.0.2.0/24", "fd99::/16")) is not None


def test_nothing_that_python_calls_not_global_is_let_through():
    """Python's own idea of private addresses differs from version to version; ours is never laxer."""
    dice = random.Random(7)
    samples = [ipaddress.IPv4Address(dice.getrandbits(32)) for _ in range(4000)]
    samples += [ipaddress.IPv4Address(f"192.0.0.{n}") for n in range(256)]
    checked = [ipaddress.IPv6Address((0x2 << 124) | dice.getrandbits(125)) for _ in range(1000)]
    checked += [ipaddress.IPv6Address((0x2001 << 112) | dice.getrandbits(112)) for _ in range(1000)]

    assert [a for a in samples if not a.is_global and reason_against(str(a), []) is None] == []
    assert [a for a in checked if not a.is_global and reason_against(str(a), []) is None] == []
