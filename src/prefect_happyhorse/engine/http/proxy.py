"""Whether a proxy connects to another server than the gateway, and at which addresses it is reached without one."""

from __future__ import annotations

import urllib.request

import anyio
import httpx

from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.domain.texts import without_queries
from prefect_happyhorse.engine.http.ssrf import AddressRefused, checked_addresses, is_local_host, is_loopback
from prefect_happyhorse.engine.http.urls import stable_url

__all__ = ["NameNotResolved", "addresses_to_connect"]

_MOST_ADDRESSES = 4


class NameNotResolved(OSError):
    """When nobody knows the address of a host; it may be known a moment later."""


async def addresses_to_connect(
    client: httpx.AsyncClient, url: httpx.URL, *, connect_s: float, local_allowed: bool
) -> tuple[str | None, ...]:
    """The addresses to connect to; a single None where a proxy connects. AddressRefused where there is none on the public internet."""
    host = url.raw_host.decode("ascii")
    by_proxy = client.trust_env and _has_proxy(url.scheme, host)
    if by_proxy and not local_allowed and is_local_host(host):
        raise AddressRefused(f"{without_queries(stable_url(str(url)))} is not on the public internet")
    try:
        with anyio.fail_after(connect_s):
            port = url.port or (443 if url.scheme == "https" else 80)
            found = await checked_addresses(host, port, local_allowed=local_allowed)
    except AddressRefused:
        raise
    except (OSError, UnicodeError) as error:
        if by_proxy:
            return (None,)
        why = "in time" if isinstance(error, TimeoutError) else f"({error})"
        raise NameNotResolved(f"the name {host} could not be resolved {why}") from error
    return (None,) if by_proxy else found[:_MOST_ADDRESSES]


def _has_proxy(scheme: str, host: str) -> bool:
    if current().proxy is not None:
        return not is_loopback(host)
    proxies = urllib.request.getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(host)
