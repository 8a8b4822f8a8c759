"""Upload an input to a gateway's own temporary storage, by a form that the gateway gives for it; the key stays at the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import cast

import anyio
import httpx
from anyio import to_thread

from prefect_happyhorse.engine.http.auth import TokenCache
from prefect_happyhorse.engine.http.client import is_local, send, transfer_s
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.decoding import decoded
from prefect_happyhorse.engine.http.proxy import NameNotResolved, addresses_to_connect
from prefect_happyhorse.engine.http.quiet import quiet_http_log
from prefect_happyhorse.engine.http.ssrf import AddressRefused, parse_url, pin_to_ip
from prefect_happyhorse.engine.media.source import MediaUnavailable
from prefect_happyhorse.gateways import Account, CallError, CallRejected, CallUnavailable, Gateway, UploadForm
from prefect_happyhorse.gateways.redaction import excerpt, mark_secret, scrub

__all__ = ["upload_temporarily"]

_CONNECT_S = 15.0
_MAX_ANSWER_BYTES = 64 * 1024
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_WAY_OUT = "The request was not sent. Run it again, or use a MediaStore with public_base_url or presign_s in place of temporary_upload."


async def upload_temporarily(
    file: Path, name: str, *, client: Client, gateway: Gateway, account: Account, model: str, tokens: TokenCache
) -> str:
    """Upload a file and give the address that a submit may name; a CallError or MediaUnavailable, neither of which bought anything."""
    try:
        answer = await send(client, gateway, account, gateway.policy_request(account, model), tokens)
        form = gateway.read_policy(answer, name)
    except CallError as error:
        error.message = f"No upload to the temporary storage was allowed: {error.message}"
        error.advice = error.advice or _WAY_OUT
        if isinstance(error, CallUnavailable):
            error.may_have_acted = False
        if isinstance(error, (CallRejected, CallUnavailable)):
            raise
        # Whatever became of the question, nothing can have been bought by it.
        raise _unavailable(error.message) from error
    status, said = await _post(client, form, file, local_allowed=is_local(account))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT:
        raise _unavailable(f"The temporary storage of {account.gateway} answered {status}: {said}")
    if status != HTTPStatus.OK:
        raise MediaUnavailable(f"the temporary storage of {account.gateway} refused its upload with {status}: {said}")
    return form.address


async def _post(client: Client, form: UploadForm, file: Path, *, local_allowed: bool) -> tuple[int, str]:
    """The status of an upload and what was said with it; to a checked address alone, with neither key nor cookie nor redirect."""
    url = _checked(form.url, local_allowed=local_allowed)
    # What goes by http must not be read by a proxy.
    http = client.direct if url.scheme == "http" else client.http
    try:
        addresses = await addresses_to_connect(http, url, connect_s=_CONNECT_S, local_allowed=local_allowed)
    except AddressRefused as error:
        raise _refused(str(error)) from error
    except NameNotResolved as error:
        raise _unavailable(f"The upload could not begin: {error}.") from error
    limit_s = client.call_s + transfer_s((await to_thread.run_sync(file.stat)).st_size)
    broken = "TimeoutError"
    for address in addresses:
        # An address has no name by which the client could tell that no proxy is meant for it.
        answer = await _send(http if address is None else client.direct, form, file, address, limit_s)
        if isinstance(answer, tuple):
            return answer
        broken = answer
    raise _unavailable(f"The upload to {url.host} broke: {broken}")


async def _send(http: httpx.AsyncClient, form: UploadForm, file: Path, address: str | None, limit_s: float) -> tuple[int, str] | str:
    """The answer to an upload, or why there is none: without the frames below, which hold the form."""
    with await to_thread.run_sync(file.open, "rb") as opened:
        plain = httpx.Request("POST", form.url, data=dict(form.fields), files={"file": (form.address.rpartition("/")[2], opened)})
        request = httpx.Request("POST", plain.url, headers=plain.headers, stream=_InThreads(plain))
        mark_secret(request, *form.secrets)
        try:
            with quiet_http_log(), anyio.fail_after(limit_s):
                return await _exchange(http, request if address is None else pin_to_ip(request, address))
        except (UnicodeError, httpx.InvalidURL):
            # The client reads the address of a redirect, though it is not to follow it.
            return "it was answered with a redirect to an address that is not valid"
        except (TimeoutError, httpx.TransportError, httpx.DecodingError) as error:
            return f"{type(error).__name__}: {scrub(str(error), httpx.Response(0, request=request))}".rstrip(": ")


async def _exchange(http: httpx.AsyncClient, request: httpx.Request) -> tuple[int, str]:
    response = await http.send(request, stream=True, auth=None, follow_redirects=False)
    content = bytearray()
    try:
        async for piece in decoded(response):
            content += piece
            if len(content) > _MAX_ANSWER_BYTES:
                break
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()
    return response.status_code, excerpt(httpx.Response(response.status_code, content=bytes(content), request=request)) or "(nothing)"


def _checked(text: str, *, local_allowed: bool) -> httpx.URL:
    try:
        url = parse_url(text)
    except ValueError as error:
        raise _refused(f"it {error}") from error
    if url.userinfo or url.query or url.fragment or not url.host or url.scheme not in {"http", "https"}:
        raise _refused("it must be scheme, host, port and path alone")
    if url.scheme != "https" and not local_allowed:
        raise _refused(f"it must be https (got {url.scheme}://{url.host})")
    return url


def _refused(why: str) -> CallRejected:
    return CallRejected(f"The gateway names an address for uploads that nothing is sent to: {why}.", meaning="not_found", advice=_WAY_OUT)


def _unavailable(message: str) -> CallUnavailable:
    return CallUnavailable(message, may_have_acted=False, advice=_WAY_OUT)


class _InThreads(httpx.AsyncByteStream):
    """A request's body, read from the disk off the event loop."""

    def __init__(self, request: httpx.Request) -> None:
        self._pieces = cast("Iterable[bytes]", request.stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._pieces)
        while (piece := await to_thread.run_sync(next, pieces, None)) is not None:
            yield piece
