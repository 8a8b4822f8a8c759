"""The key for results that a gateway gives to nobody else, sent to its own origin alone."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from prefect_happyhorse.engine.http.auth import TokenCache
from prefect_happyhorse.engine.http.client import authorize
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.ssrf import check_base_url, same_origin
from prefect_happyhorse.gateways import Account, get_gateway

__all__ = ["ResultKey"]


@dataclass(frozen=True)
class ResultKey:
    """An account's key, or its access token, for results at the gateway itself."""

    client: Client
    account: Account
    tokens: TokenCache

    def opens(self, url: httpx.URL) -> bool:
        """Whether the key may be sent to an address: only to the very origin to which it is sent with every other call."""
        try:
            check_base_url(self.account.base_url, private_network=self.account.private_network)
        except ValueError:
            return False
        return same_origin(url, httpx.URL(self.account.base_url))

    async def sign(self, request: httpx.Request) -> None:
        """Put the key into a request; CallError when there is none."""
        gateway = get_gateway(self.account.gateway)
        gateway.sign(request, await authorize(self.client, gateway, self.account, self.tokens))

    def connection(self, url: httpx.URL, usual: httpx.AsyncClient) -> httpx.AsyncClient:
        """What sends a signed request: past any proxy where that would read the key."""
        return self.client.direct if url.scheme == "http" else usual
