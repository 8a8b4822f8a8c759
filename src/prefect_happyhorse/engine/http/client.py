"""One HTTP client per event loop, and the table that says what a broken call means for the bill."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar
from weakref import WeakKeyDictionary

import httpx
from pydantic import SecretStr

from prefect_happyhorse.engine.http.auth import TokenCache
from prefect_happyhorse.gateways import AccessToken, Account, CallError, CallRejected, CallUnavailable, Gateway, MalformedResponse

__all__ = [
    "NEVER_DELIVERED",
    "OUTCOME_UNKNOWN",
    "Client",
    "Connections",
    "authorize",
    "is_local",
    "is_on_this_machine",
    "send",
    "translate",
]

_Result = TypeVar("_Result")

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_MAX_ANSWER_BYTES = 256 * 1024 * 1024

# https://www.python-httpx.org/exceptions/ : every transport error is in exactly one of the two, and a test holds it so.
NEVER_DELIVERED: tuple[type[httpx.TransportError], ...] = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""The gateway cannot have read the request: it may be sent again."""

OUTCOME_UNKNOWN: tuple[type[httpx.TransportError], ...] = (
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.RemoteProtocolError,
)
"""The gateway may have read the request and may be working on it."""


# A connection pool's own queue costs time that grows with the square of its length, so that calls and downloads queue before it: each for
# its own kind, for a poll must not wait for a long download, nor for another gateway that answers slowly.
_CALLS = 16
_DOWNLOADS = 16


@dataclass
class Client:
    """An event loop's HTTP client, and the slots that calls and downloads wait for."""

    http: httpx.AsyncClient
    users: int = 0
    calls: defaultdict[str, asyncio.Semaphore] = field(default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(_CALLS)))
    downloads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_DOWNLOADS))


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    # Building one costs some 20 ms of CPU, and every task of a mapped flow has an event loop and so a client of its own.
    return httpx.create_ssl_context()


class Connections:
    """The HTTP clients of a process, one for each event loop. They carry no key and follow no redirect."""

    def __init__(self) -> None:
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    @asynccontextmanager
    async def client(self, make: Callable[[], httpx.AsyncClient] | None = None) -> AsyncGenerator[Client]:
        """The event loop's client: shared by all who are inside at the same time, closed when the last one leaves."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=_CALLS)
            http = make() if make else httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, verify=_ssl_context(), follow_redirects=False)
            client = self._clients[loop] = Client(http)
        client.users += 1
        try:
            yield client
        finally:
            client.users -= 1
            if client.users == 0:
                self._clients.pop(loop, None)
                await client.http.aclose()


def is_local(account: Account) -> bool:
    """Whether a gateway lies off the public internet, so that its results may lie there too.

    Example:
        >>> is_local(Account(gateway="ttapi", base_url="http://127.0.0.1:8808/ttapi"))
        True
    """
    return account.private_network or is_on_this_machine(account)


def is_on_this_machine(account: Account) -> bool:
    """Whether a gateway runs on this machine, as the sandbox does."""
    host = httpx.URL(account.base_url).host
    return host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or host == "::1"


async def send(
    client: Client,
    gateway: Gateway,
    account: Account,
    request: httpx.Request,
    tokens: TokenCache,
    *,
    before: Callable[[], Awaitable[None]] | None = None,
) -> httpx.Response:
    """Sign a call, send it once, and read its response; `before` is the last that happens before it is sent, and may refuse it."""
    if not _same_origin(request.url, httpx.URL(account.base_url)):
        raise CallRejected(
            f"A call to {request.url.host} would take the key away from {account.base_url}; nothing was sent.", meaning="not_found"
        )
    token = await authorize(client, gateway, account, tokens)
    gateway.sign(request, token)
    response = await _transmit(client, request, account, before)
    if account.key is not None or not gateway.refuses_token(response):
        return response
    # Another process may have exchanged a token since, which invalidated this one. A refused token means that no work was started.
    gateway.sign(request, await authorize(client, gateway, account, tokens, refused=token))
    return await _transmit(client, request, account, before)


async def authorize(
    client: Client, gateway: Gateway, account: Account, tokens: TokenCache, *, refused: SecretStr | None = None
) -> SecretStr:
    """The key of an account, or its access token, which is exchanged where there is none but the refused one."""
    if account.key is not None:
        return account.key
    if gateway.facts.token is None or account.app_id is None:
        raise CallRejected(
            f"There is no key for {account.gateway}.",
            meaning="authentication",
            advice=f"Save a GatewayCredentials block, or set {account.gateway.upper()}_API_KEY.",
        )

    async def exchange() -> AccessToken:
        try:
            return await _drive(client, gateway.token_flow(account), account)
        except CallRejected as error:
            raise CallRejected(
                f"No access token was given: {error.message}",
                meaning="authentication",
                code=error.code,
                advice="Check app_id and secret_key in the GatewayCredentials block.",
            ) from error
        except CallError as error:
            # Whatever became of the exchange, the call that needs the token was not sent.
            retry_after_s = error.retry_after_s if isinstance(error, CallUnavailable) else None
            raise CallUnavailable(
                f"No access token was given: {error.message}", may_have_acted=False, retry_after_s=retry_after_s, code=error.code
            ) from error

    # The secret key is no part of the name: a rotated secret still speaks for the same account.
    return await tokens.get(f"{account.gateway}\n{account.base_url}\n{account.app_id}", exchange, refused=refused)


async def _drive(client: Client, flow: Generator[httpx.Request, httpx.Response, _Result], account: Account) -> _Result:
    """Send what a flow yields, hand it the responses, and give what it returns."""
    try:
        request = next(flow)
        while True:
            request = flow.send(await _transmit(client, request, account))
    except StopIteration as stop:
        return stop.value


async def _transmit(
    client: Client, request: httpx.Request, account: Account, before: Callable[[], Awaitable[None]] | None = None
) -> httpx.Response:
    try:
        async with client.calls[request.url.host]:
            if before is not None:
                await before()
            response = await client.http.send(request, stream=True)
            try:
                return await _read(response, account)
            finally:
                await response.aclose()
    except httpx.LocalProtocolError as error:
        # Its text, and so its traceback, may quote a header, and with it the key.
        raise translate(type(error)("the call is no valid HTTP"), account) from None
    except httpx.TransportError as error:
        raise translate(error, account) from error
    except httpx.DecodingError as error:
        raise MalformedResponse(f"{account.gateway} answered in an encoding that cannot be read: {error}") from error


async def _read(response: httpx.Response, account: Account) -> httpx.Response:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise MalformedResponse(f"{account.gateway} answered with more than {_MAX_ANSWER_BYTES} bytes.")
    headers = [
        (name, value) for name, value in response.headers.multi_items() if name.lower() not in {"content-encoding", "content-length"}
    ]
    return httpx.Response(response.status_code, headers=headers, content=bytes(content), request=response.request)


def translate(error: httpx.TransportError, account: Account) -> CallUnavailable:
    """What a broken call means."""
    delivered = not isinstance(error, NEVER_DELIVERED)
    what = "broke after it was sent" if delivered else "never reached the gateway"
    return CallUnavailable(f"The call to {account.base_url} {what}: {type(error).__name__}: {error}".rstrip(": "), may_have_acted=delivered)


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
