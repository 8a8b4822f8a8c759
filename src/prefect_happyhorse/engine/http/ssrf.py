"""Protection against server-side request forgery: no private addresses, and connections to the checked address only.

The ranges are those of the IANA special-purpose registries: https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

import httpx

__all__ = ["AddressRefused", "checked_addresses", "host_of", "is_local_host", "is_public", "pin_to_ip"]

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        # `ipaddress.is_global` differs between Python versions, and misses some of these.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
# All of IPv6 that is allocated so far: https://www.iana.org/assignments/ipv6-address-space
_ALLOCATED = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(ValueError):
    """When an output may not be fetched from a host."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    Example:
        >>> is_public("93.184.215.14"), is_public("::ffff:169.254.169.254"), is_public("100.64.0.1")
        (True, False, False)
    """
    found = ipaddress.ip_address(address)
    inner = _embedded(found)
    if inner is not None:
        return is_public(str(inner))
    if found.version == 6 and found not in _ALLOCATED:
        return False
    return not any(found in network for network in _NOT_PUBLIC)


def _embedded(address: _IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a mapped, 6to4 or NAT64 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _6TO4:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def host_of(url: str) -> str | None:
    """The host of a web address, or None when it is not valid.

    Example:
        >>> host_of("https://user@Example.com:8443/x"), host_of("http://[::1"), host_of("http://example.com:port/")
        ('example.com', None, None)
    """
    try:
        parts = urlsplit(url)
        # Reading the port is what checks it.
        return parts.hostname if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


def is_local_host(host: str) -> bool:
    """Whether a host is on this machine or a private network by its text alone; no name is resolved.

    Example:
        >>> is_local_host("localhost"), is_local_host("127.1"), is_local_host("192.168.0.7"), is_local_host("example.com")
        (True, True, True, False)
    """
    plain = host.strip("[]").rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    try:
        return not is_public(plain)
    except ValueError:
        pass
    try:
        # Numbers such as 2130706433, 0x7f.1 and 127.1 are IPv4 addresses to every resolver.
        return not is_public(socket.inet_ntoa(socket.inet_aton(plain)))
    except (OSError, UnicodeError):
        return False


async def checked_addresses(host: str, port: int, *, local_allowed: bool) -> tuple[str, ...]:
    """Resolve a host to the addresses that may be connected to.

    Connect to these alone: the name may resolve to something else a moment later (DNS rebinding).
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = addresses if local_allowed else tuple(address for address in addresses if is_public(address))
    if not allowed:
        raise AddressRefused(f"{host} is at {', '.join(addresses) or 'no address'}, which is not on the public internet")
    return allowed


def pin_to_ip(request: httpx.Request, address: str) -> httpx.Request:
    """The same request, sent to one IP address whatever its host resolves to by then."""
    name = request.url.raw_host.decode("ascii")
    headers = httpx.Headers(request.headers)
    headers["Host"] = request.url.netloc.decode("ascii")
    # Connections are pooled by address: one whose certificate was checked for another name must not be reused.
    headers["Connection"] = "close"
    extensions = {**request.extensions, "sni_hostname": name}
    return httpx.Request(request.method, request.url.copy_with(host=address), headers=headers, extensions=extensions)
