"""Protection against server-side request forgery: no private addresses, and connections to the checked address only.

The ranges are those of the IANA special-purpose registries: https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from functools import lru_cache

import httpx

__all__ = [
    "AddressRefused",
    "check_base_url",
    "check_unambiguous",
    "checked_addresses",
    "host_of",
    "is_local_host",
    "is_loopback",
    "is_public",
    "parse_url",
    "pin_to_ip",
    "same_origin",
]

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
# Link-local addresses, and those at which clouds tell whoever asks from a machine its credentials: nothing is ever fetched from there.
_FORBIDDEN = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        # https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
        "100.100.100.200/32",
        # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        "168.63.129.16/32",
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
        "fd00:ec2::254/128",
        # https://cloud.google.com/compute/docs/metadata/querying-metadata
        "fd20:ce::254/128",
    )
)
# All of IPv6 that is allocated so far: https://www.iana.org/assignments/ipv6-address-space
_ALLOCATED = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# Browsers read a backslash before the query as a slash, others as part of the user name or host.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f]|^[^?#]*\\")


class AddressRefused(ValueError):
    """When an output may not be fetched from a host."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    Example:
        >>> is_public("93.184.215.14"), is_public("::ffff:169.254.169.254"), is_public("100.64.0.1")
        (True, False, False)
    """
    found = _plain(address)
    if found.version == 6 and found not in _ALLOCATED:
        return False
    return not any(found in network for network in (*_NOT_PUBLIC, *_FORBIDDEN))


def _is_forbidden(address: str) -> bool:
    found = _plain(address)
    return any(found in network for network in _FORBIDDEN)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its text alone: a loopback address, or localhost.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("127.0.0.1.nip.io"), is_loopback("127.1")
        (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Which of the two knows a mapped address differs between Python versions.
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _plain(address: str) -> _IPAddress:
    """An IP address, or the IPv4 address that it stands for."""
    found = ipaddress.ip_address(address)
    return _embedded(found) or found


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


def check_unambiguous(url: str) -> None:
    """Refuse, with a ValueError, an address that another parser would read otherwise than the one that sends it."""
    if _AMBIGUOUS.search(url):
        raise ValueError("must hold no backslash or control character")


def parse_url(url: str) -> httpx.URL:
    r"""A web address as it will be sent; ValueError, which does not quote it, when it is not valid.

    Example:
        >>> parse_url("https://good.example\\@evil.example")
        Traceback (most recent call last):
            ...
        ValueError: must hold no backslash or control character
    """
    check_unambiguous(url)
    try:
        parsed = httpx.URL(url)
        # It is decoded only when it is asked for, and xn--zzzzzz cannot be.
        _ = parsed.host
    except (httpx.InvalidURL, UnicodeError):
        # Its own text may quote what is secret.
        parsed = None
    if parsed is None or (parsed.port is not None and not 0 < parsed.port < 65_536):
        raise ValueError("is not valid")
    return parsed


def host_of(url: str) -> str | None:
    """The host of a web address, or None when it is not valid.

    Example:
        >>> host_of("https://user@Example.com:8443/x"), host_of("http://[::1"), host_of("http://example.com:port/")
        ('example.com', None, None)
    """
    try:
        return parse_url(url).host or None
    except ValueError:
        return None


# Before every call, and for the few addresses of a process; what is refused is not remembered.
@lru_cache(maxsize=64)
def check_base_url(url: str, *, private_network: bool) -> httpx.URL:
    """A gateway's address, read; ValueError for one to which no key may be sent.

    Example:
        >>> check_base_url("http://api.example", private_network=False)
        Traceback (most recent call last):
            ...
        ValueError: must be https unless its host is this machine or private_network is true (got 'http://api.example')
    """
    parsed = parse_url(url)
    if parsed.userinfo or "?" in url or "#" in url:
        raise ValueError("must be scheme, host, port and path alone: a key belongs into api_key")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"must be an http or https address with a host (got {url!r})")
    address = _literal(parsed.host.rstrip("."))
    if address is not None and _is_forbidden(address):
        raise ValueError(f"must lead neither to a link-local address nor to a cloud's metadata (got {url!r})")
    if parsed.scheme != "https" and not (private_network or is_loopback(parsed.host)):
        raise ValueError(f"must be https unless its host is this machine or private_network is true (got {url!r})")
    return parsed


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two addresses share scheme, host and port (https://www.rfc-editor.org/rfc/rfc6454#section-5).

    Example:
        >>> same_origin(httpx.URL("https://Api.example/v1"), httpx.URL("https://api.example:443/"))
        True
        >>> same_origin(httpx.URL("https://api.example"), httpx.URL("https://api.example:8443"))
        False
    """
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def is_local_host(host: str) -> bool:
    """Whether a host is on this machine or a private network by its text alone; no name is resolved.

    Example:
        >>> is_local_host("localhost"), is_local_host("127.1"), is_local_host("192.168.0.7"), is_local_host("example.com")
        (True, True, True, False)
    """
    plain = host.strip("[]").rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    address = _literal(plain)
    return address is not None and not is_public(address)


def _literal(host: str) -> str | None:
    """The IP address that a host is by its text alone, or None for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        # Numbers such as 2130706433, 0x7f.1 and 127.1 are IPv4 addresses to every resolver.
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


async def checked_addresses(host: str, port: int, *, local_allowed: bool) -> tuple[str, ...]:
    """Resolve a host to the addresses that may be connected to; link-local ones and those of a cloud's metadata never are.

    Connect to these alone: the name may resolve to something else a moment later (DNS rebinding).
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = tuple(address for address in addresses if (not _is_forbidden(address) if local_allowed else is_public(address)))
    if not allowed:
        what = "is link-local or a cloud's metadata" if local_allowed and addresses else "is not on the public internet"
        raise AddressRefused(f"{host} is at {', '.join(addresses) or 'no address'}, which {what}")
    return allowed


def pin_to_ip(request: httpx.Request, address: str) -> httpx.Request:
    """The same request, sent to one IP address whatever its host resolves to by then."""
    name = request.url.raw_host.decode("ascii")
    headers = httpx.Headers(request.headers)
    headers["Host"] = request.url.netloc.decode("ascii")
    # Connections are pooled by address: one whose certificate was checked for another name must not be reused.
    headers["Connection"] = "close"
    extensions = {**request.extensions, "sni_hostname": name}
    url = request.url.copy_with(host=address)
    return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)
