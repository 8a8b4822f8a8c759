"""Bring the bytes of an output into its unfinished file, and look at what came."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import httpx
from anyio import to_thread

from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.download.exchange import DownloadOptions, FetchProblem, open_result
from prefect_happyhorse.engine.download.part_file import Partial
from prefect_happyhorse.engine.media.formats import HEAD_BYTES, kind_of, sniff
from prefect_happyhorse.engine.media.probe import MediaNotReadable, Probe, decoders, probe
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES

__all__ = ["Progress", "Transfer", "is_inline"]

Progress = Callable[[int, "int | None"], None]
"""Is told how many bytes are there, and how many there will be where the server says so."""

_HEADERS = {"User-Agent": "prefect-happyhorse", "Accept": "*/*", "Accept-Encoding": "identity"}
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d+|\*)", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_BASE64_STEP = 1024 * 1024
_NOUNS: dict[AssetKind, str] = {"image": "picture", "video": "video", "audio": "sound"}


def is_inline(output: Output) -> bool:
    """Whether an output's bytes are at hand, as base64 or as a data URL."""
    return output.inline is not None or (output.url is not None and output.url.startswith("data:"))


@dataclass(frozen=True)
class Transfer:
    """Fetches one output, one attempt at a time.

    Args:
        kind: What it has to be.
        client: Carries the exchanges.
        limits: How long and how large it may be.
        local_allowed: Whether it may come from this machine or a private network.
        progress: Is told how far it is.
        now: Gives the present.
    """

    kind: AssetKind
    client: httpx.AsyncClient
    limits: DownloadOptions
    local_allowed: bool
    progress: Progress | None
    now: Callable[[], datetime]

    async def bring(self, output: Output, partial: Partial, expires_at: datetime | None) -> Probe:
        """Bring all bytes of an output into its file and look at it."""
        if is_inline(output):
            await to_thread.run_sync(self._decode, partial, output.inline or output.url or "")
        elif output.url is None:
            raise FetchProblem("its bytes came inside an earlier answer and were not kept", remedy="refresh")
        elif expires_at is not None and expires_at <= self.now():
            raise FetchProblem("its address has expired", remedy="refresh")
        elif not partial.is_whole:
            await self._stream(partial, output.url)
        return await to_thread.run_sync(self._look_at, partial, is_inline(output), limiter=decoders())

    def _decode(self, partial: Partial, text: str) -> None:
        head = _DATA_URL.match(text)
        partial.restart()
        rest = ""
        try:
            for start in range(head.end() if head else 0, len(text), _BASE64_STEP):
                piece = rest + "".join(text[start : start + _BASE64_STEP].split())
                usable = len(piece) - len(piece) % 4
                rest = piece[usable:]
                self._take(partial, base64.b64decode(piece[:usable], validate=True))
            if rest:
                # Some encoders leave the padding out.
                self._take(partial, base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True))
        except binascii.Error as error:
            raise FetchProblem(f"its base64 is wrong: {error}", remedy="refresh") from error

    async def _stream(self, partial: Partial, url: str) -> None:
        headers = dict(_HEADERS)
        if partial.offset and partial.validator is not None:
            headers |= {"Range": f"bytes={partial.offset}-", "If-Range": partial.validator}
        async with open_result(self.client, url, headers=headers, limits=self.limits, local_allowed=self.local_allowed) as response:
            if response.status_code == 200:
                total = int(length) if (length := response.headers.get("Content-Length", "")).isdecimal() else None
                self._check_length(total or 0)
                await to_thread.run_sync(lambda: partial.restart(validator=_validator(response), total=total))
            elif not await to_thread.run_sync(_goes_on, partial, response):
                return
            await self._receive(partial, response)
        if partial.total is not None and partial.offset != partial.total:
            raise FetchProblem(f"{partial.offset:,} bytes came of {partial.total:,}", remedy="retry")

    async def _receive(self, partial: Partial, response: httpx.Response) -> None:
        """Hash and write one piece while the next one comes."""
        content_type = response.headers.get("Content-Type")
        buffer = bytearray()
        writing: asyncio.Future[None] | None = None
        try:
            async for piece in response.aiter_raw():
                buffer += piece
                if len(buffer) >= CHUNK_BYTES:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(self._write(partial, buffer, content_type))
                    buffer = bytearray()
        except httpx.HTTPError:
            if writing is not None:
                await writing
            # What came before the break is good, if it is enough to tell what it is.
            if partial.offset + len(buffer) >= HEAD_BYTES:
                await self._write(partial, buffer, content_type)
                await to_thread.run_sync(partial.checkpoint)
            raise
        finally:
            if writing is not None:
                # Nobody else may touch the file while a thread still writes to it.
                await asyncio.wait({writing})
                if not writing.cancelled():
                    writing.exception()
        if writing is not None:
            await writing
        await self._write(partial, buffer, content_type)

    async def _write(self, partial: Partial, data: bytearray, content_type: str | None) -> None:
        if data or not partial.offset:
            await to_thread.run_sync(self._take, partial, data, content_type)
            if self.progress is not None:
                self.progress(partial.offset, partial.total)

    def _take(self, partial: Partial, data: bytes | bytearray, content_type: str | None = None) -> None:
        if partial.offset == 0:
            self._check_start(bytes(data[:HEAD_BYTES]), content_type)
        self._check_length(partial.offset + len(data))
        partial.append(data)

    def _check_start(self, head: bytes, content_type: str | None) -> None:
        """Refuse an error page, or anything else that is not what the job makes, before it is written."""
        found = sniff(head)
        if found is None or kind_of(found) != self.kind:
            what = found or content_type or "what is of no known media format"
            came = f"{what} in place of a {_NOUNS[self.kind]}" if head else "nothing at all"
            raise FetchProblem(f"the server sent {came}", remedy="refresh")

    def _check_length(self, length: int) -> None:
        most = self.limits.max_bytes[self.kind]
        if length > most:
            raise FetchProblem(f"it has {length:,} bytes or more, allowed are at most {most:,}", remedy="none")

    def _look_at(self, partial: Partial, inline: bool) -> Probe:
        """Look at the whole file. It is thrown away when it is not what it should be."""
        try:
            partial.checkpoint()
            return probe(partial.path)
        except MediaNotReadable as error:
            partial.restart()
            raise FetchProblem(f"what came is not whole: {error}", remedy="refresh" if inline else "retry") from error


def _validator(response: httpx.Response) -> str | None:
    """By what a server can be asked to go on with the very same file (https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5)."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _goes_on(partial: Partial, response: httpx.Response) -> bool:
    """Whether the answer to a Range request goes on where the file ends; False when there is nothing more to come."""
    span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    start, total = (None, None) if span is None else (span["start"], span["total"])
    if response.status_code == 416:
        if partial.offset and total == str(partial.offset):
            return False
    elif partial.offset and start == str(partial.offset) and _is_same_file(partial, response, total):
        return True
    partial.restart()
    raise FetchProblem("the server could not go on where it had ended", remedy="retry", status_code=response.status_code)


def _is_same_file(partial: Partial, response: httpx.Response, total: str | None) -> bool:
    tag, known = response.headers.get("ETag"), partial.validator or ""
    is_other = bool(tag) and known.startswith('"') and tag != known
    return not is_other and (total == "*" or partial.total is None or total == str(partial.total))
