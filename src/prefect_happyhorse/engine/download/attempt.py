"""One attempt at a download: the bytes of an output go into its partial file, and are checked on the way and at the end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import httpx
from anyio import to_thread

from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.download.exchange import HEADERS, DownloadOptions, FetchProblem, UnknownFormat, is_coded, open_result
from prefect_happyhorse.engine.download.part_file import Partial
from prefect_happyhorse.engine.http.decoding import decoded
from prefect_happyhorse.engine.http.result_key import ResultKey
from prefect_happyhorse.engine.media.c2pa import has_c2pa
from prefect_happyhorse.engine.media.data_url import decode
from prefect_happyhorse.engine.media.formats import HEAD_BYTES, NOUNS, is_text, kind_of, sniff
from prefect_happyhorse.engine.media.probe import FormatUnknown, MediaInfo, MediaNotReadable, in_decoder, probe
from prefect_happyhorse.engine.media.thumbnail import probe_and_thumbnail
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES
from prefect_happyhorse.gateways.redaction import holds_secret, scrub

__all__ = ["OnBytes", "Pace", "Transfer"]

OnBytes = Callable[[int, "int | None"], None]
"""Called with how many bytes are there, and how many there will be where the server says so."""

_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d{1,18}|\*)", re.IGNORECASE)

_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Transfer:
    """Fetches one output of a kind, one attempt at a time.

    Args:
        local_allowed: Whether it may come from this machine and private networks.
        with_thumbnail: Whether to make one while the whole file is looked into.
        unknown_allowed: Whether it may be in a media format that is not known here.
        key: What opens an output that its gateway gives to the account's key alone.
    """

    kind: AssetKind
    client: httpx.AsyncClient
    options: DownloadOptions
    local_allowed: bool
    on_bytes: OnBytes | None
    now: Callable[[], datetime]
    with_thumbnail: bool = False
    unknown_allowed: bool = False
    key: ResultKey | None = None

    async def run(self, output: Output, partial: Partial, expires_at: datetime | None) -> tuple[MediaInfo, bytes | None]:
        """Get all bytes of an output into its partial file; what they are, and the thumbnail."""
        if output.inline is not None:
            await to_thread.run_sync(self._decode, partial, output.inline)
        elif output.url is None:
            raise FetchProblem("its bytes came inside an earlier response and were not stored", remedy="refresh")
        elif expires_at is not None and expires_at <= self.now():
            raise FetchProblem("its address has expired", remedy="refresh")
        elif not partial.is_whole:
            await self._stream(partial, output.url, keyed=output.keyed)
        return await in_decoder(self._check_whole, partial, output.is_inline)

    def _decode(self, partial: Partial, text: str) -> None:
        partial.restart()
        try:
            for piece in decode(text, strict=False):
                self._append(partial, piece)
        except ValueError as error:
            raise FetchProblem(f"its base64 is wrong: {error}", remedy="refresh") from error

    async def _stream(self, partial: Partial, url: str, *, keyed: bool) -> None:
        headers = dict(HEADERS)
        if partial.offset and partial.validator is not None:
            headers |= {"Range": f"bytes={partial.offset}-", "If-Range": partial.validator}
        direct = None if self.key is None else self.key.client.direct
        where: dict[str, Any] = {"local_allowed": self.local_allowed, "key": self.key, "keyed": keyed, "direct": direct}
        opened = open_result(self.client, url, headers=headers, options=self.options, **where)
        async with opened as response:
            total = _total(response, ranged="Range" in headers)
            if response.status_code == 200 or total is not None:
                self._check_length(total or 0)
                validator = None if is_coded(response) else _validator(response)
                partial.restart(validator=validator, total=total)
            elif not _continues(partial, response):
                return
            await self._receive(partial, response)
        if partial.total is not None and partial.offset != partial.total:
            raise FetchProblem(f"only {partial.offset:,} of {partial.total:,} bytes came", remedy="retry")

    async def _receive(self, partial: Partial, response: httpx.Response) -> None:
        """Hash and write one piece while the next one comes."""
        content_type = scrub(response.headers.get("Content-Type", ""), response) or None
        buffer = bytearray()
        writing: asyncio.Future[None] | None = None
        pace = Pace(self.options)
        try:
            async for piece in decoded(response):
                pace.check(len(piece))
                buffer += piece
                if len(buffer) >= CHUNK_BYTES:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(self._write(partial, buffer, content_type))
                    buffer = bytearray()
        except (httpx.HTTPError, FetchProblem):
            if writing is not None:
                await writing
            # What came before the connection broke is good, if it is enough to tell the format.
            if partial.offset + len(buffer) >= HEAD_BYTES:
                await self._write(partial, buffer, content_type)
                await to_thread.run_sync(partial.checkpoint)
            raise
        finally:
            if writing is not None:
                # No other thread may touch the file while this one still writes to it.
                await asyncio.wait({writing})
                if not writing.cancelled():
                    writing.exception()
        if writing is not None:
            await writing
        await self._write(partial, buffer, content_type)

    async def _write(self, partial: Partial, data: bytearray, content_type: str | None) -> None:
        if data or not partial.offset:
            await to_thread.run_sync(self._append, partial, data, content_type)
            if self.on_bytes is not None:
                self.on_bytes(partial.offset, partial.total)

    def _append(self, partial: Partial, data: bytes | bytearray, content_type: str | None = None) -> None:
        if partial.offset == 0:
            self._check_start(bytes(data[:HEAD_BYTES]), content_type)
        self._check_length(partial.offset + len(data))
        partial.append(data)

    def _check_start(self, head: bytes, content_type: str | None) -> None:
        """Refuse an error page, or anything else that the job does not make, before it is written."""
        found = sniff(head)
        if found is not None and kind_of(found) == self.kind:
            return
        is_unknown = found is None and bool(head) and not is_text(head, content_type)
        if is_unknown and self.unknown_allowed:
            return
        what = found or content_type or "an unknown media format"
        sent = f"{what} in place of a {NOUNS[self.kind]}" if head else "nothing at all"
        raise (UnknownFormat if is_unknown else FetchProblem)(f"the server sent {sent}", remedy="refresh")

    def _check_length(self, length: int) -> None:
        most = self.options.max_bytes[self.kind]
        if length > most:
            raise FetchProblem(f"it must have at most {most:,} bytes (got {length:,} or more)", remedy="none")

    def _check_whole(self, partial: Partial, inline: bool) -> tuple[MediaInfo, bytes | None]:
        """Look into the whole file, which is dropped when it is damaged."""
        try:
            info, thumbnail = probe_and_thumbnail(partial.path) if self.with_thumbnail else (probe(partial.path), None)
            return replace(info, c2pa=has_c2pa(partial.path, info.format)), thumbnail
        except MediaNotReadable as error:
            if self.unknown_allowed and isinstance(error, FormatUnknown):
                return MediaInfo("bin", self.kind, partial.offset), None
            partial.forget()
            partial.restart()
            raise FetchProblem(f"what came is not whole: {error}", remedy="refresh" if inline else "retry") from error


class Pace:
    """Ends a download that drips: each byte starts the client's own time-out anew."""

    def __init__(self, options: DownloadOptions) -> None:
        self._window_s = options.stall_s
        self._least = options.stall_s * options.slowest_bytes_per_s
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()
        self._came = 0

    def check(self, length: int) -> None:
        """Count so many bytes, and raise when too few have come for too long."""
        self._came += length
        if self._clock() - self._since >= self._window_s:
            if self._came < self._least:
                raise FetchProblem(f"only {self._came:,} bytes came in {self._window_s:g} s", remedy="retry")
            self._since, self._came = self._clock(), 0


def _validator(response: httpx.Response) -> str | None:
    """What goes into If-Range, so that only the very same file is continued (https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5)."""
    tag = response.headers.get("ETag")
    found = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    return None if found is None or holds_secret(found, response) else found


def _total(response: httpx.Response, *, ranged: bool) -> int | None:
    """How long the file is of which a response begins with the first byte, where it does and says so."""
    if is_coded(response):
        return None
    if response.status_code == 206 and not ranged:
        # Some servers answer so whether a part was requested or not. If it is not the whole, the next attempt goes on from there.
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        return int(span["total"]) if span is not None and span["start"] == "0" and span["total"] != "*" else None
    length = response.headers.get("Content-Length", "") if response.status_code == 200 else ""
    return int(length) if _LENGTH.fullmatch(length) else None


def _continues(partial: Partial, response: httpx.Response) -> bool:
    """Whether the response to a Range request continues where the file ends; False when there is nothing more to come."""
    span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    start, total = (None, None) if span is None else (span["start"], span["total"])
    if response.status_code == 416:
        if partial.offset and total == str(partial.offset):
            return False
    elif partial.offset and start == str(partial.offset) and not is_coded(response) and _is_same_file(partial, response, total):
        return True
    partial.restart()
    raise FetchProblem("the server could not continue where the last attempt had ended", remedy="retry", status_code=response.status_code)


def _is_same_file(partial: Partial, response: httpx.Response, total: str | None) -> bool:
    tag, known = response.headers.get("ETag"), partial.validator or ""
    is_other = bool(tag) and known.startswith('"') and tag != known
    return not is_other and (total == "*" or partial.total is None or total == str(partial.total))
