"""The HTTP clients of a process, one for each event loop."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from prefect_happyhorse.domain.settings import NO_PROXY, current
from prefect_happyhorse.engine.telemetry import Telemetry, chosen

__all__ = ["Client", "Connections", "ssl_context"]

# A connection pool's own queue costs time that grows with the square of its length, so that calls and downloads queue before it: each for
# its own kind, for a poll must not wait for a long download, nor for another gateway that answers slowly.
_CALLS = 16
_DOWNLOADS = 16
# Many servers close a connection after five seconds of rest, and a submit that meets that is one of which nobody knows whether it came.
_RESTS_S = 2.0


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none."""


_NO_COOKIES = _NoCookies()


class _Http(httpx.AsyncClient):
    @property
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride] -- nobody sets them
        # None is ever sent, and to look for them takes a tenth of the time of a call.
        return _NO_COOKIES


class Calls:
    """The slots for calls to one host, each with a client and so a connection of its own.

    A pool asks the system twice at each call, for every connection that rests in it, whether it is still open.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._slots = asyncio.Semaphore(_CALLS)
        self.resting: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[httpx.AsyncClient]:
        """A client for one call: the one whose connection was in use last, since it is the least likely to be closed."""
        async with self._slots:
            client = self.resting.pop() if self.resting else self._make()
            try:
                yield client
            finally:
                self.resting.append(client)


@dataclass
class Client:
    """An event loop's HTTP clients, by the environment's proxies and by none; the slots that calls wait for; where it is told of them."""

    make: Callable[..., httpx.AsyncClient]
    call_s: float = field(default_factory=lambda: current().call_timeout_s)
    telemetry: Telemetry = field(default_factory=chosen)
    users: int = 0
    calls: dict[tuple[str, bool], Calls] = field(default_factory=dict[tuple[str, bool], Calls])
    downloads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_DOWNLOADS))

    def __post_init__(self) -> None:
        self.http, self.direct = self.make(direct=False), self.make(direct=True)

    def calls_to(self, url: httpx.URL) -> Calls:
        """The slots for calls to a host, past any proxy where that would read the key: of https it sees the host alone."""
        direct = url.scheme == "http"
        if (calls := self.calls.get((url.host, direct))) is None:
            calls = self.calls[url.host, direct] = Calls(partial(self.make, direct=direct))
        return calls


@lru_cache(maxsize=4)
def ssl_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """What certificates are checked by: the public authorities, or those of SSL_CERT_FILE, and the ones of the setting `ca_bundle`."""
    # Building one costs some 20 ms of CPU, and every task of a mapped flow has an event loop and so a client of its own.
    context = httpx.create_ssl_context()
    if ca_bundle is not None:
        try:
            context.load_verify_locations(ca_bundle.expanduser())
        except OSError as error:
            why = error.strerror or str(error) or "it holds no certificate"
            message = f"the setting ca_bundle must name a PEM file with certificates ({why}); nothing was sent"
            raise OSError(error.errno or errno.EINVAL, message, str(ca_bundle)) from error
    return context


# httpx hands these to a proxy too, which would look for them on its own machine.
_THIS_MACHINE = {"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None}


def _made(make: Callable[[], httpx.AsyncClient], *, direct: bool) -> httpx.AsyncClient:
    return make()


def _new(call_s: float, *, direct: bool) -> httpx.AsyncClient:
    chosen = current()
    proxy = "" if chosen.proxy is None else chosen.proxy.get_secret_value()
    trusted = ssl_context(chosen.ca_bundle)
    by_proxy: dict[str, Any] = {"mounts": _THIS_MACHINE}
    if direct or proxy == NO_PROXY:
        by_proxy = {"trust_env": False}
    elif proxy:
        by_proxy["proxy"] = httpx.Proxy(proxy, ssl_context=trusted if proxy.startswith("https:") else None)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=_CALLS, keepalive_expiry=_RESTS_S)
    timeout = httpx.Timeout(call_s, connect=chosen.connect_timeout_s)
    return _Http(timeout=timeout, limits=limits, verify=trusted, follow_redirects=False, **by_proxy)


class Connections:
    """The HTTP clients of a process, one for each event loop. They carry no key and follow no redirect.

    Args:
        call_s: How long a call to a gateway may take as a whole, in seconds; None for what is set.
    """

    def __init__(self, *, call_s: float | None = None) -> None:
        self._call_s = call_s
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    @asynccontextmanager
    async def client(self, make: Callable[[], httpx.AsyncClient] | None = None) -> AsyncGenerator[Client]:
        """The event loop's client: shared by all who are inside at the same time, closed when the last one leaves."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            call_s = self._call_s or current().call_timeout_s
            new = partial(_new, call_s) if make is None else partial(_made, make)
            client = self._clients[loop] = Client(new, call_s)
        client.users += 1
        try:
            yield client
        finally:
            client.users -= 1
            if client.users == 0:
                self._clients.pop(loop, None)
                async with AsyncExitStack() as closing:
                    for one in (client.http, client.direct, *(one for calls in client.calls.values() for one in calls.resting)):
                        closing.push_async_callback(one.aclose)
