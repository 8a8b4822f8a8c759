"""Give every medium of a request an address that its gateway can read, before any money is spent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import cast

from anyio import to_thread

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import MediaUnreachable
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media, replace_media
from prefect_happyhorse.engine.http.ssrf import host_of, is_local_host
from prefect_happyhorse.engine.http.urls import content_fingerprint
from prefect_happyhorse.engine.inputs.preflight import file_problems, limit_of
from prefect_happyhorse.engine.media.data_url import decode, inline_length
from prefect_happyhorse.engine.media.formats import HEAD_BYTES, extension_of, media_type_of, sniff
from prefect_happyhorse.engine.media.source import MediaUnavailable, local_file, local_path_of, shown, where
from prefect_happyhorse.engine.storage.local import hash_file
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["INPUTS_FOLDER", "Fetch", "Publish", "by_reference", "upload_inputs"]

INPUTS_FOLDER = "inputs"
"""The store's folder for media that are uploaded for a gateway to read; each under its SHA-256, so once."""

Fetch = Callable[[str, Path, int], Awaitable[None]]
"""Writes what lies at a web address into a file of at most so many bytes; MediaUnavailable where it cannot."""

Publish = Callable[[Path, str], Awaitable[str]]
"""Uploads a file under a name to where the gateway alone reads it, and gives its address; MediaUnavailable where it is refused."""

_MARGIN = timedelta(minutes=10)
_UNREADABLE = "where the gateway cannot read it"
_A_FILE = "It is sent as a file: give one that can be read here, or a public http(s) address that it can be fetched from."


async def upload_inputs(
    request: GenerationRequest,
    route: Route,
    store: Store | None,
    *,
    now: datetime,
    gateway_is_local: bool,
    fingerprints: Mapping[tuple[str, int | None], str] = MappingProxyType({}),
    fetch: Fetch | None = None,
    publish: Publish | None = None,
) -> GenerationRequest:
    """Replace the media of a request by addresses that its gateway can read; one that is not what its fingerprint says is refused.

    What the gateway takes as a file becomes a data URL, for which it is read, or fetched from the web. Of all else, in this order: the
    provider's own address of an asset, until it expires; the store's public or presigned address, for which a file from elsewhere is
    uploaded once; the gateway's temporary storage, where `publish` uploads to it; a data URL, where the route accepts one.

    Example:
        >>> from datetime import timezone
        >>> from prefect_happyhorse.catalog import resolve
        >>> from prefect_happyhorse.domain.requests import ReferenceToVideo
        >>> request = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=["https://example.com/a.png"])
        >>> route = resolve(request, "ttapi")
        >>> asyncio.run(upload_inputs(request, route, None, now=datetime.now(timezone.utc), gateway_is_local=False)).references
        ('https://example.com/a.png',)
    """
    uploader = _Uploader(route, store, now, gateway_is_local, fetch, publish)
    media = list(iter_media(request))
    tried = await asyncio.gather(*(uploader.address(name, position, medium) for name, position, medium in media), return_exceptions=True)
    # Only now, so that none is at work when the connections are closed.
    if (error := next((one for one in tried if isinstance(one, BaseException)), None)) is not None:
        raise error
    found = [
        # What was bought would be known for ever under the digest of another picture.
        _Address(problem="it has changed since it was checked; run again")
        if result.sha256 and fingerprints.get((name, position), content_fingerprint(result.sha256)) != content_fingerprint(result.sha256)
        else result
        for (name, position, _), result in zip(media, cast("list[_Address]", tried), strict=True)
    ]
    problems = [
        f"{where(name, position)}={_name(medium)}: {result.problem}"
        for (name, position, medium), result in zip(media, found, strict=True)
        if result.problem
    ]
    if problems:
        wrong = {name for (name, _, _), result in zip(media, found, strict=True) if result.problem}
        raise MediaUnreachable(
            f"{route.gateway} cannot read {len(problems)} of the media. Nothing was sent. " + "; ".join(problems) + ".",
            gateway=route.gateway,
            model=route.model,
            capability=route.capability,
            advice=_ways_out(route) if wrong - route.file_fields else _A_FILE,
        )
    _check_inline(route, [result.url for result in found])
    addresses: dict[str, str | tuple[str, ...]] = {}
    for (name, position, _), result in zip(media, found, strict=True):
        earlier = addresses.get(name, ())
        addresses[name] = result.url if position is None or isinstance(earlier, str) else (*earlier, result.url)
    return request.model_copy(update=addresses)


def _check_inline(route: Route, addresses: list[str]) -> None:
    """Refuse media inside the body that are too long together."""
    length, most = sum(inline_length(one) for one in addresses if one.startswith("data:")), route.facts.max_inline_bytes
    if most is not None and length > most:
        raise MediaUnreachable(
            f"{route.gateway} takes at most {most:,} bytes of media inside a request, all together (got {length:,}). Nothing was sent.",
            gateway=route.gateway,
            model=route.model,
            capability=route.capability,
            advice=_ways_out(route),
        )


def by_reference(request: GenerationRequest) -> GenerationRequest:
    """A request as the journal keeps it: of a medium that came as a data URL its type, hash and length, not its megabytes.

    Example:
        >>> from prefect_happyhorse.domain.requests import ImageToVideo
        >>> by_reference(ImageToVideo(model="m", image="data:image/png;base64,aG9yc2U=")).image[:30]
        'data:image/png;sha256=fd62862b'
    """
    return replace_media(
        request,
        {
            (name, position): _reference(medium)
            for name, position, medium in iter_media(request)
            if isinstance(medium, str) and locate(medium) == "inline"
        },
    )


def _reference(data_url: str) -> str:
    hashed, length = hashlib.sha256(), 0
    for part in decode(data_url, strict=True):
        hashed.update(part)
        length += len(part)
    media_type = data_url.partition(",")[0].partition(":")[2].partition(";")[0]
    return f"data:{media_type};sha256={hashed.hexdigest()};bytes={length}"


@dataclass(frozen=True)
class _Address:
    url: str = ""
    problem: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class _Uploader:
    route: Route
    store: Store | None
    now: datetime
    gateway_is_local: bool
    fetch: Fetch | None
    publish: Publish | None

    async def address(self, name: str, position: int | None, medium: MediaAsset | str) -> _Address:
        """The address of one medium, or why it has none."""
        if name in self.route.file_fields:
            return await self._file(name, medium.uri if isinstance(medium, MediaAsset) else medium)
        if isinstance(medium, MediaAsset):
            if medium.url is not None and self._is_alive(medium) and self._is_readable(medium.url):
                return _Address(medium.url)
            text = medium.uri
        else:
            text = medium
            location = locate(text)
            if location == "web":
                return _Address(text) if self._is_readable(text) else _Address(problem=f"it lies on a private network, {_UNREADABLE}")
            if location == "inline" and self.route.base64:
                return _Address(text)
        try:
            return await self._stored(text) or await self._published(text) or await self._inline(name, text)
        except (MediaUnavailable, OSError) as error:
            return _Address(problem=str(error))

    async def _file(self, name: str, text: str) -> _Address:
        """The bytes of a medium, as a data URL."""
        try:
            return await (self._fetched(name, text) if locate(text) == "web" else self._data_url(name, text))
        except (MediaUnavailable, OSError) as error:
            return _Address(problem=str(error))

    async def _fetched(self, name: str, url: str) -> _Address:
        limit = limit_of(self.route, name)
        if self.fetch is None or limit is None:
            return _Address(problem="it lies on the web, and nothing fetches it here")
        folder = Path(await to_thread.run_sync(tempfile.mkdtemp))
        try:
            file = folder / "medium"
            await self.fetch(url, file, limit.max_bytes)
            if problems := await to_thread.run_sync(file_problems, file, name, self.route):
                return _Address(problem="; ".join(problems))
            # Its digest goes by its address, so that its hash says nothing about whether it is the same.
            return replace(await to_thread.run_sync(_data_url, file), sha256=None)
        finally:
            await to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    def _is_alive(self, asset: MediaAsset) -> bool:
        return asset.url_expires_at is None or asset.url_expires_at - _MARGIN > self.now

    def _is_readable(self, url: str) -> bool:
        return self.gateway_is_local or not is_local_host(host_of(url) or "")

    async def _stored(self, text: str) -> _Address | None:
        """Its address in the store, to which it is uploaded if need be; None when the store has no address that the gateway can read."""
        if self.store is None or not await self._has_addresses(self.store):
            return None
        existing = self._path_in_store(text)
        if existing is not None and await self.store.exists(existing):
            return _Address(await self.store.public_url(existing) or "")
        async with local_file(text, store=self.store) as file:
            path, size, sha256 = await to_thread.run_sync(_content_path, file)
            if not await self.store.has(path, size):
                await self.store.keep(file, path, move=False)
                if await to_thread.run_sync(hash_file, file) != sha256:
                    await self.store.delete(path)
                    return _Address(problem="it changed while it was uploaded; run again")
        return _Address(await self.store.public_url(path) or "", sha256=sha256)

    async def _has_addresses(self, store: Store) -> bool:
        sample = await store.public_url(f"{INPUTS_FOLDER}/sample")
        return sample is not None and self._is_readable(sample)

    def _path_in_store(self, text: str) -> str | None:
        if self.store is None:
            return None
        local = local_path_of(text)
        return self.store.path_of(text if local is None else f"file://{local.as_posix()}")

    async def _published(self, text: str) -> _Address | None:
        """Its address in the gateway's temporary storage, new at each call; None where nothing is uploaded there."""
        if self.publish is None:
            return None
        async with local_file(text, store=self.store) as file:
            path, _, sha256 = await to_thread.run_sync(_content_path, file)
            address = await self.publish(file, path.rpartition("/")[2])
            if await to_thread.run_sync(hash_file, file) != sha256:
                return _Address(problem="it changed while it was uploaded; run again")
        return _Address(address, sha256=sha256)

    async def _inline(self, name: str, text: str) -> _Address:
        """The medium as a data URL, where the route accepts one."""
        return await self._data_url(name, text) if self.route.base64 else _Address(problem=self._no_address())

    async def _data_url(self, name: str, text: str) -> _Address:
        limit = limit_of(self.route, name)
        async with local_file(text, store=self.store) as file:
            size = (await to_thread.run_sync(file.stat)).st_size
            if limit is not None and size > limit.max_bytes:
                return _Address(problem=f"inside the request it must have at most {limit.max_bytes:,} bytes (got {size:,})")
            return await to_thread.run_sync(_data_url, file)

    def _no_address(self) -> str:
        if self.store is None:
            return f"it lies here, {_UNREADABLE}, and there is no store to upload it to"
        if self.store.public_base_url is None and self.store.presign_s is None:
            return f"it lies here, {_UNREADABLE}, and the store {self.store.url} has no public address"
        return f"it lies here, {_UNREADABLE}, and the public address of the store {self.store.url} is on a private network"


def _name(medium: MediaAsset | str) -> str:
    return shown(medium.uri if isinstance(medium, MediaAsset) else medium)


def _content_path(file: Path) -> tuple[str, int, str]:
    with file.open("rb") as opened:
        form = sniff(opened.read(HEAD_BYTES))
    extension = "bin" if form is None else extension_of(form)
    sha256 = hash_file(file)
    return f"{INPUTS_FOLDER}/{sha256}.{extension}", file.stat().st_size, sha256


def _data_url(file: Path) -> _Address:
    content = file.read_bytes()
    form = sniff(content[:HEAD_BYTES])
    if form is None:
        raise MediaUnavailable("its media format is not known")
    url = f"data:{media_type_of(form)};base64,{base64.b64encode(content).decode('ascii')}"
    return _Address(url, sha256=hashlib.sha256(content).hexdigest())


def _ways_out(route: Route) -> str:
    ways = [
        "give http(s) addresses that anybody can read",
        "use a MediaStore with public_base_url, or an object store with presign_s",
    ]
    if route.facts.upload_policy is not None:
        ways.append("for a trial, set temporary_upload in the credentials, which uploads to the gateway's own temporary storage")
    if not route.base64:
        ways.append(f"or use a gateway that accepts media inside the request, which {route.gateway} does not here")
    return f"Ways out: {'; '.join(ways)}."
