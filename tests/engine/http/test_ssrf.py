"""Which addresses belong to the public internet, and that connections go nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_happyhorse.engine.http.ssrf import (
    AddressRefused,
    check_base_url,
    checked_addresses,
    host_of,
    is_local_host,
    is_loopback,
    is_public,
    pin_to_ip,
)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 -- nothing is bound
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.8.9.10",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_not_public(address: str) -> None:
    """Private, loopback, link-local, shared, multicast, reserved and unspecified addresses are not public, in whatever disguise."""
    assert is_public(address) is False


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.215.14",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "192.167.255.255",
        "2606:2800:21f:cb07::1",
        "2a00:1450::1",
        "::ffff:93.184.215.14",
        "64:ff9b::93.184.215.14",
        "2002:5db8:d70e::1",
    ],
)
def test_public(address: str) -> None:
    """Addresses of the public internet are public, next to the borders of what is not too."""
    assert is_public(address) is True


@given(address=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_at_least_as_strict_as_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Nothing that the standard library knows to be special is public here."""
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    special = special or address.is_reserved or address.is_unspecified or not address.is_global
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour):
        return
    # Newer Pythons count this prefix, which is translated to an IPv4 address, among the global ones; older ones did not.
    if special and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert is_public(str(address)) is False


@given(inner=st.ip_addresses(v=4))
def test_disguises(inner: ipaddress.IPv4Address) -> None:
    """An IPv6 address that stands for an IPv4 address is as public as that one."""
    number = int(inner)
    disguises = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
    ]
    assert [is_public(str(address)) for address in disguises] == [is_public(str(inner))] * 3


@given(inner=st.ip_addresses(v=4))
def test_spellings(inner: ipaddress.IPv4Address) -> None:
    """An IPv4 address is known in every spelling that resolvers take."""
    number = int(inner)
    spellings = [str(inner), str(number), hex(number), oct(number).replace("0o", "0"), f"{number >> 24}.{number & 0xFFFFFF}"]
    assert [is_local_host(text) for text in spellings] == [not is_public(str(inner))] * 5


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("sandbox.localhost", True),
        ("[::1]", True),
        ("::1", True),
        ("127.0.0.1", True),
        ("example.com", False),
        ("localhost.example.com", False),
        ("93.184.215.14", False),
        ("", False),
        ("ex\u00e4mple.com", False),
    ],
)
def test_local_hosts(host: str, expected: bool) -> None:
    """Whether a host lies here is told from its text alone."""
    assert is_local_host(host) is expected


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_only_public_ones_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name's addresses those remain that are public, each once, in their order."""
    resolving(monkeypatch, "1.1.1.1", "10.0.0.1", "1.1.1.1", "93.184.215.14")
    assert await checked_addresses("x.example", 443, local_allowed=False) == ("1.1.1.1", "93.184.215.14")
    assert await checked_addresses("x.example", 443, local_allowed=True) == ("1.1.1.1", "10.0.0.1", "93.184.215.14")


@pytest.mark.parametrize("addresses", [("10.0.0.1", "::1"), ()])
async def test_none_is_left(addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a public address is refused, and its addresses are named."""
    resolving(monkeypatch, *addresses)
    with pytest.raises(AddressRefused, match=f"x.example is at {', '.join(addresses) or 'no address'}"):
        await checked_addresses("x.example", 443, local_allowed=False)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
    ],
)
@pytest.mark.parametrize("local_allowed", [False, True])
async def test_metadata(address: str, local_allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cloud tells its machines is out of reach even for a gateway in a private network, and by whatever name."""
    resolving(monkeypatch, address)
    with pytest.raises(AddressRefused, match=f"x.example is at {address}, which is"):
        await checked_addresses("x.example", 443, local_allowed=local_allowed)
    resolving(monkeypatch, address, "10.0.0.1", "1.1.1.1")
    assert address not in await checked_addresses("x.example", 443, local_allowed=local_allowed)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("127.evil.com", False),
        ("127.0.0.1.nip.io", False),
        ("localhost.evil.com", False),
        ("2002:7f00:1::", False),
        ("0.0.0.0", False),  # noqa: S104 -- nothing is bound
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """This machine is an address or localhost, never a name that looks like one."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "url", ["https://api.example/v1", "http://127.0.0.1:8808", "http://localhost", "http://[::1]:80/x", "https://10.0.0.1"]
)
def test_base_urls(url: str) -> None:
    """A key goes out under TLS, or does not leave the machine."""
    check_base_url(url, private_network=False)


def test_base_url_of_a_private_network() -> None:
    """There the user has said that nobody listens."""
    check_base_url("http://sandbox:8808", private_network=True)
    with pytest.raises(ValueError, match="must be https unless"):
        check_base_url("http://sandbox:8808", private_network=False)


@pytest.mark.parametrize(
    "url",
    [
        r"https://good.example\@evil.example",
        r"https://good.example\.evil.example/a.png",
        "https://good.example\t.evil.example",
        "https://good.example\n",
        "https://good.example:99999/",
        "https://good.example:0/",
        "https://xn--zzzzzz/a.png",
    ],
)
def test_ambiguous(url: str) -> None:
    """What two parsers read in two ways has no host here, and is no gateway."""
    assert host_of(url) is None
    with pytest.raises(ValueError, match=r"must hold no|is not valid"):
        check_base_url(url, private_network=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0x7f000001", "::1"])
async def test_real_resolver(host: str) -> None:
    """What the system's own resolver makes of this machine's names is refused, and allowed where it is meant to be."""
    with pytest.raises(AddressRefused):
        await checked_addresses(host, 80, local_allowed=False)
    assert set(await checked_addresses(host, 80, local_allowed=True)) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("url", "address", "expected"),
    [
        ("https://x.example/a?b=%20c", "1.1.1.1", "https://1.1.1.1/a?b=%20c"),
        ("http://x.example:8080/", "2606:2800::1", "http://[2606:2800::1]:8080/"),
    ],
)
def test_pinned(url: str, address: str, expected: str) -> None:
    """A request that is pinned to an IP goes to the address, and says the name wherever names are said."""
    request = httpx.Request("GET", url, headers={"Range": "bytes=1-"}, extensions={"timeout": {"read": 1}})
    sent = pin_to_ip(request, address)
    assert (str(sent.url), sent.headers["Host"], sent.headers["Range"], sent.headers["Connection"], sent.extensions) == (
        expected,
        request.headers["Host"],
        "bytes=1-",
        "close",
        {"timeout": {"read": 1}, "sni_hostname": "x.example"},
    )


def test_pinned_international() -> None:
    """A name beyond ASCII is said the way that names are sent."""
    sent = pin_to_ip(httpx.Request("GET", "https://b\u00fccher.example/"), "1.1.1.1")
    assert (sent.headers["Host"], sent.extensions["sni_hostname"]) == ("xn--bcher-kva.example", "xn--bcher-kva.example")
