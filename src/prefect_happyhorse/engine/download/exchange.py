"""One HTTP exchange of a download: to checked addresses only, redirects included, and only at its own gateway with a key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import anyio
import httpx

from prefect_happyhorse.domain.texts import without_queries
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.http.decoding import DECODED, codings
from prefect_happyhorse.engine.http.proxy import NameNotResolved, addresses_to_connect
from prefect_happyhorse.engine.http.quiet import quiet_http_log
from prefect_happyhorse.engine.http.result_key import ResultKey
from prefect_happyhorse.engine.http.ssrf import AddressRefused, check_unambiguous, parse_url, pin_to_ip
from prefect_happyhorse.engine.http.urls import stable_url
from prefect_happyhorse.gateways import CallError, CallUnavailable
from prefect_happyhorse.gateways.failures import retry_after_s
from prefect_happyhorse.gateways.redaction import mark_secret, scrub

__all__ = ["HEADERS", "DownloadOptions", "FetchProblem", "Remedy", "UnknownFormat", "is_coded", "open_result"]

HEADERS = {"User-Agent": "prefect-happyhorse", "Accept": "*/*", "Accept-Encoding": "identity"}
"""What every request for a file says of us."""

Remedy = Literal["retry", "refresh", "none"]
"""What may help: the same address again, a fresh address from the gateway, or nothing at all."""

_GIB = 1024**3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# How object stores respond to an expired address: Google's with 400, and a proxy in front of one may ask for a login.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
_TRANSIENT = frozenset({408, 425, 429})
_SAID_CHARS = 100


@dataclass(frozen=True)
class DownloadOptions:
    """How long and how large a download may be.

    Args:
        connect_s: Seconds to resolve a name and connect.
        stall_s: Seconds without a single byte, or at less than the slowest rate.
        slowest_bytes_per_s: The slowest rate that still counts as a download.
        max_bytes: The greatest length in bytes, by kind.
        redirects: How many redirects are followed.
        retries: How many failures in a row are retried while nothing new comes.
        refreshes: How often the gateway is asked for a fresh address.
        backoff_s: Seconds before the first retry; doubled for each further one.
        backoff_max_s: The longest wait before a retry, and the longest that a server's Retry-After is obeyed.
        checkpoint_bytes: After how many bytes the partial file is synced: a killed process loses no more than that.
    """

    connect_s: float = 15.0
    stall_s: float = 60.0
    slowest_bytes_per_s: float = 1000.0
    max_bytes: Mapping[AssetKind, int] = field(
        default_factory=lambda: MappingProxyType({"image": 5 * _GIB, "video": 5 * _GIB, "audio": 5 * _GIB}), hash=False
    )
    redirects: int = 5
    retries: int = 5
    refreshes: int = 2
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    checkpoint_bytes: int = 8 * 1024 * 1024


class FetchProblem(Exception):
    """When an exchange did not bring the output; the message is a sentence without its full stop."""

    def __init__(self, message: str, *, remedy: Remedy, status_code: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy: Remedy = remedy
        self.status_code = status_code
        self.retry_after_s = retry_after_s


class UnknownFormat(FetchProblem):
    """When what came is in no media format that is known here, and is no error page either."""


@asynccontextmanager
async def open_result(
    client: httpx.AsyncClient,
    url: str,
    *,
    headers: Mapping[str, str],
    options: DownloadOptions,
    local_allowed: bool,
    key: ResultKey | None = None,
    keyed: bool = False,
    direct: httpx.AsyncClient | None = None,
) -> AsyncGenerator[httpx.Response, None]:
    """Request an output and follow redirects, each to an address that was checked.

    Neither the client's headers nor its cookies nor its authentication are sent, and the key only where the output is keyed, to addresses
    that it opens. Where the environment names a proxy for the host and the client trusts the environment, it is the proxy that connects;
    then names are checked as far as they can be resolved here. Where it names none, `direct` connects, which knows of no proxy.
    """
    exchange = _Exchange(client, headers, options, local_allowed, key, direct)
    try:
        target = parse_url(url)
    except ValueError as error:
        # Without the error and its frames, which hold the address in pieces.
        raise FetchProblem(f"the address {exchange.scrubbed(str(error))}", remedy="refresh") from None
    try:
        # An address is as good as a key: whoever reads its signature may fetch the output.
        with quiet_http_log():
            response = await exchange.answer(target, keyed=keyed)
            if isinstance(response, FetchProblem):
                raise response
            try:
                _check_status(response)
                yield response
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
    except httpx.TimeoutException as error:
        what = f"no byte came for {options.stall_s:g} s" if isinstance(error, httpx.ReadTimeout) else "it took too long to connect"
        raise FetchProblem(what, remedy="retry") from error
    except httpx.HTTPError as error:
        raise FetchProblem(f"the connection broke ({type(error).__name__}: {error})", remedy="retry") from error


@dataclass(frozen=True)
class _Exchange:
    """How an output is requested, wherever it leads."""

    client: httpx.AsyncClient
    headers: Mapping[str, str]
    options: DownloadOptions
    local_allowed: bool
    account_key: ResultKey | None
    direct: httpx.AsyncClient | None

    async def answer(self, url: httpx.URL, *, keyed: bool) -> httpx.Response | FetchProblem:
        """The response, or why there is none: without the frames below and their errors, which hold the addresses of redirects."""
        try:
            return await self._follow(url, keyed=keyed)
        except FetchProblem as problem:
            problem.__cause__ = problem.__context__ = None
            return problem.with_traceback(None)

    async def _follow(self, url: httpx.URL, *, keyed: bool) -> httpx.Response:
        """Request an output, and go where the answer leads."""
        key = self.account_key if keyed else None
        for _ in range(self.options.redirects + 1):
            # Behind a redirect to elsewhere somebody else decides where it goes on, so the key stays away for good.
            key = key if key is not None and key.opens(url) else None
            response = await self._get(url, key)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            target = response.headers.get("Location")
            if not target:
                raise FetchProblem("a redirect has no Location", remedy="retry", status_code=response.status_code)
            try:
                check_unambiguous(target)
                following = parse_url(str(url.join(target)))
            except (ValueError, httpx.InvalidURL) as error:
                raise FetchProblem(f"the address that a redirect leads to {self.scrubbed(str(error))}", remedy="none") from None
            if url.scheme == "https" and following.scheme == "http":
                raise FetchProblem(f"a redirect leads from https to http, to {self._named(following)}", remedy="none")
            url = following
        raise FetchProblem(f"there are more than {self.options.redirects} redirects", remedy="refresh")

    async def _request(self, url: httpx.URL, key: ResultKey | None) -> httpx.Request:
        if url.scheme not in {"http", "https"} or not url.host:
            raise FetchProblem(f"{self._named(url)} must be an http or https address", remedy="none")
        if url.userinfo:
            raise FetchProblem(f"{self._named(url)} must hold no user name or password", remedy="none")
        timeout = {"connect": self.options.connect_s, "read": self.options.stall_s, "write": self.options.stall_s, "pool": None}
        request = httpx.Request("GET", url, headers=dict(self.headers), extensions={"timeout": timeout})
        if self.account_key is not None:
            mark_secret(request, *self.account_key.account.secrets())
        if key is not None:
            await _sign(request, key)
        return request

    async def _get(self, url: httpx.URL, key: ResultKey | None) -> httpx.Response:
        request = await self._request(url, key)
        client = self.client if key is None else key.connection(url, self.client)
        addresses = await self._addresses(client, url)
        if self.direct is not None and None not in addresses:
            # An address has no name by which the client could tell that no proxy is meant for it.
            client = self.direct
        for number, address in enumerate(addresses, start=1):
            try:
                # Not `client.build_request`, which would add the client's headers and cookies.
                sent = request if address is None else pin_to_ip(request, address)
                # Each byte of a head that drips would have the whole of the time-outs above for itself.
                with anyio.fail_after(self.options.connect_s + self.options.stall_s):
                    answer = await _send(client, sent)
                if isinstance(answer, Exception):
                    raise answer
                return answer
            except TimeoutError as error:
                raise FetchProblem(f"no answer came in {self.options.connect_s + self.options.stall_s:g} s", remedy="retry") from error
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise FetchProblem(f"{self._named(url)} has no address", remedy="retry")

    async def _addresses(self, client: httpx.AsyncClient, url: httpx.URL) -> tuple[str | None, ...]:
        """The addresses to connect to; a single None where a proxy connects."""
        try:
            return await addresses_to_connect(client, url, connect_s=self.options.connect_s, local_allowed=self.local_allowed)
        except AddressRefused as error:
            raise FetchProblem(f"{self.scrubbed(str(error))}, and nothing is fetched from elsewhere", remedy="none") from error
        except NameNotResolved as error:
            raise FetchProblem(str(error), remedy="retry") from error

    def _named(self, url: httpx.URL) -> str:
        """An address as an error may show it: without a signature, user name and password."""
        return self.scrubbed(stable_url(str(url.copy_with(query=None, fragment=None))))

    def scrubbed(self, text: str) -> str:
        """A text without any secret of the account."""
        request = httpx.Request("GET", "http://localhost")
        if self.account_key is not None:
            mark_secret(request, *self.account_key.account.secrets())
        return without_queries(scrub(text, httpx.Response(0, request=request)))


async def _sign(request: httpx.Request, key: ResultKey) -> None:
    try:
        await key.sign(request)
    except CallError as error:
        remedy: Remedy = "retry" if isinstance(error, CallUnavailable) else "none"
        raise FetchProblem(f"the gateway gives it to its account's key alone, and {error.message}", remedy=remedy) from error


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response | httpx.TransportError | FetchProblem:
    """The response to a request, or why there is none: without the frames below, which may hold a key, as may their errors' texts."""
    try:
        return await client.send(request, stream=True, auth=None, follow_redirects=False)
    except httpx.LocalProtocolError as error:
        return type(error)("the request is no valid HTTP")
    except (httpx.InvalidURL, UnicodeError):
        # The client reads the address of a redirect, though it is not to follow it.
        return FetchProblem("a redirect leads to an address that is not valid", remedy="none")
    except httpx.TransportError as error:
        return type(error)(scrub(str(error), httpx.Response(0, request=request)))


def is_coded(response: httpx.Response) -> bool:
    """Whether the body has to be decoded, though `identity` was requested: its length and ranges are not those of the file."""
    return bool(codings(response))


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206, 416}:
        named = codings(response)
        if len(named) > 1 or not DECODED.issuperset(named):
            said = ", ".join(named)[:_SAID_CHARS]
            raise FetchProblem(f"the server encoded the file as {said!r}, which was not requested", remedy="retry", status_code=status)
        return
    remedy: Remedy = "refresh" if status in _EXPIRED else "retry" if status >= 500 or status in _TRANSIENT else "none"
    wait_s = retry_after_s(response) or 0.0
    raise FetchProblem(f"the server answered {status}", remedy=remedy, status_code=status, retry_after_s=wait_s)
