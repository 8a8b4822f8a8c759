"""One call to a gateway, and the table that says what a broken one means for the bill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import lru_cache
from typing import Protocol, TypeVar

import anyio
import httpx
from anyio import to_thread
from pydantic import SecretStr

from prefect_happyhorse.catalog import routes
from prefect_happyhorse.engine.http.auth import TokenCache
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.decoding import decoded
from prefect_happyhorse.engine.http.quiet import quiet_http_log
from prefect_happyhorse.engine.http.ssrf import check_base_url, is_loopback, same_origin
from prefect_happyhorse.gateways import AccessToken, Account, CallError, CallRejected, CallUnavailable, Gateway, MalformedResponse
from prefect_happyhorse.gateways.redaction import scrub

__all__ = [
    "NEVER_DELIVERED",
    "OUTCOME_UNKNOWN",
    "Permit",
    "authorize",
    "is_local",
    "is_on_this_machine",
    "send",
    "transfer_s",
    "translate",
]

_Result = TypeVar("_Result")

# A call counts from its first byte to the answer's last. A long body has more time, as the slowest line that is waited for needs it.
_SLOWEST_BYTES_PER_S = 50_000

_MAX_ANSWER_BYTES = 1024 * 1024
_MAX_INLINE_BYTES = 64 * 1024 * 1024
# What is longer is looked at in a thread before it is parsed on the event loop, which a megabyte of brackets would hold up for a second.
_LONG_BYTES = 64 * 1024
_MAX_VALUES = 20_000

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


def is_local(account: Account) -> bool:
    """Whether a gateway lies off the public internet, so that its results may lie there too.

    Example:
        >>> is_local(Account(gateway="ttapi", base_url="http://127.0.0.1:8808/ttapi"))
        True
    """
    return account.private_network or is_on_this_machine(account)


def is_on_this_machine(account: Account) -> bool:
    """Whether a gateway runs on this machine, as the sandbox does."""
    return is_loopback(_parsed(account.base_url).host)


@lru_cache(maxsize=64)
def _parsed(base_url: str) -> httpx.URL:
    return httpx.URL(base_url)


class Permit(Protocol):
    """What may still refuse a call just before it is sent."""

    async def check(self) -> None:
        """Called once there is a slot for the call."""
        ...

    def confirm(self) -> None:
        """Called once there is a connection, at the moment at which the call leaves."""
        ...


async def send(
    client: Client, gateway: Gateway, account: Account, request: httpx.Request, tokens: TokenCache, *, permit: Permit | None = None
) -> httpx.Response:
    """Sign a call, send it once, and read its response."""
    try:
        base = check_base_url(account.base_url, private_network=account.private_network)
    except ValueError as error:
        raise CallRejected(f"The base URL of {account.gateway} {error}; nothing was sent.", meaning="not_found") from error
    if not same_origin(request.url, base):
        raise CallRejected(
            f"A call to {request.url.host} would take the key away from {account.base_url}; nothing was sent.", meaning="not_found"
        )
    token = await authorize(client, gateway, account, tokens)
    gateway.sign(request, token)
    max_bytes = _max_bytes(gateway, account, request, base)
    response = await _transmit(client, request, account, max_bytes=max_bytes, permit=permit)
    if account.key is not None or not gateway.refuses_token(response):
        return response
    # Another process may have exchanged a token since, which invalidated this one. A refused token means that no work was started.
    gateway.sign(request, await authorize(client, gateway, account, tokens, refused=token))
    return await _transmit(client, request, account, max_bytes=max_bytes, permit=permit)


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


def _max_bytes(gateway: Gateway, account: Account, request: httpx.Request, base: httpx.URL) -> int:
    """How long the answer to a call may be: only the poll of a route that makes pictures may be answered with the pictures themselves."""
    asked = request.url.raw_path.removeprefix(base.raw_path.rstrip(b"/")).decode("ascii")
    for route in routes(gateway.facts.gateway):
        if route.kind != "image":
            continue
        method, _, path = route.poll.partition(" ")
        before, _, after = (account.poll_path or path).partition("{task_id}")
        if request.method == method and asked.startswith(before) and asked.endswith(after):
            return _MAX_INLINE_BYTES
    return _MAX_ANSWER_BYTES


async def _drive(client: Client, flow: Generator[httpx.Request, httpx.Response, _Result], account: Account) -> _Result:
    """Send what a flow yields, hand it the responses, and give what it returns."""
    try:
        request = next(flow)
        while True:
            request = flow.send(await _transmit(client, request, account))
    except StopIteration as stop:
        return stop.value


async def _transmit(
    client: Client, request: httpx.Request, account: Account, *, max_bytes: int = _MAX_ANSWER_BYTES, permit: Permit | None = None
) -> httpx.Response:
    async with client.calls_to(request.url).client() as http:
        if permit is not None:
            await permit.check()
            request.extensions["trace"] = _confirming(permit)
        answer = await _exchange(client, http, request, account, max_bytes)
    if isinstance(answer, CallError):
        # Raised here and without its cause, since the frames below hold the key as it is sent, and a traceback may show their locals.
        raise answer
    return answer


def _confirming(permit: Permit) -> Callable[[str, object], Awaitable[None]]:
    async def trace(event: str, _: object) -> None:
        # See https://www.encode.io/httpcore/extensions/#trace
        if event.endswith("send_request_headers.started"):
            permit.confirm()

    return trace


async def _exchange(
    client: Client, http: httpx.AsyncClient, request: httpx.Request, account: Account, max_bytes: int
) -> httpx.Response | CallError:
    """The answer to a call, or why there is none."""
    sent_bytes = int(request.headers.get("Content-Length", 0))
    try:
        with quiet_http_log(), anyio.fail_after(client.call_s + transfer_s(sent_bytes)) as limit:
            response = await http.send(request, stream=True)
            try:
                content = await _read(response, max_bytes, limit)
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
    except TimeoutError:
        # Part of it may have been read, and part of an answer may have come.
        return CallUnavailable(f"The call to {account.base_url} was not answered within {client.call_s:g} s.", may_have_acted=True)
    except httpx.LocalProtocolError as error:
        # Its text may quote a header, and with it the key.
        return translate(type(error)("the call is no valid HTTP"), account)
    except httpx.TransportError as error:
        # A gateway that speaks no HTTP is quoted, and may have sent back what it was sent.
        return translate(type(error)(scrub(str(error), httpx.Response(0, request=request))), account)
    except httpx.DecodingError as error:
        return MalformedResponse(f"{account.gateway} answered in an encoding that cannot be read: {error}")
    except (UnicodeError, httpx.InvalidURL):
        # The client reads the address of a redirect, though it is not to follow it.
        return MalformedResponse(f"{account.gateway} answered with a redirect to an address that is not valid.")
    if content is None:
        return MalformedResponse(f"{account.gateway} answered with more than {max_bytes} bytes.", status_code=response.status_code)
    if len(content) > _LONG_BYTES and await to_thread.run_sync(_has_too_many_values, content):
        return MalformedResponse(f"{account.gateway} answered with more than {_MAX_VALUES} values.", status_code=response.status_code)
    return httpx.Response(response.status_code, headers=_headers(response), content=content, request=request)


def transfer_s(size: int) -> float:
    """How long so many bytes take on the slowest line that is waited for, in seconds."""
    return size / _SLOWEST_BYTES_PER_S


async def _read(response: httpx.Response, max_bytes: int, limit: anyio.CancelScope) -> bytes | None:
    """The answer's body, or None when it is too long; each byte that comes moves the limit on by what it takes on the slowest line."""
    content = bytearray()
    async for chunk in decoded(response):
        content += chunk
        limit.deadline += transfer_s(len(chunk))
        if len(content) > max_bytes:
            return None
    return bytes(content)


def _has_too_many_values(content: bytes) -> bool:
    # Base64 holds none of these.
    return sum(content.count(mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES


def _headers(response: httpx.Response) -> httpx.Headers:
    headers = httpx.Headers(response.headers)
    for name in ("Content-Encoding", "Content-Length"):
        headers.pop(name, None)
    return headers


def translate(error: httpx.TransportError, account: Account) -> CallUnavailable:
    """What a broken call means."""
    delivered = not isinstance(error, NEVER_DELIVERED)
    what = "broke after it was sent" if delivered else "never reached the gateway"
    return CallUnavailable(f"The call to {account.base_url} {what}: {type(error).__name__}: {error}".rstrip(": "), may_have_acted=delivered)
