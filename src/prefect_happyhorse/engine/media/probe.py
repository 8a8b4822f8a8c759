"""What a media file is, by all of its bytes; its sides and times by Pillow and PyAV, where they are installed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from anyio import CancelScope, CapacityLimiter
from anyio.lowlevel import RunVar

from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.media.formats import HEAD_BYTES, MediaFormat, extension_of, kind_of, media_type_of, sniff

__all__ = ["FEW_PIXELS", "MOST_PIXELS", "FormatUnknown", "MediaInfo", "MediaNotReadable", "can_measure", "decoders", "in_decoder", "probe"]

MOST_PIXELS = 40_000_000
"""How many pixels a picture may have to be decoded: at four bytes each, that is what a decoding thread takes."""

FEW_PIXELS = 2_100_000
"""Up to so many pixels more threads would take longer to start than they save."""

_Result = TypeVar("_Result")
_DECODERS: RunVar[CapacityLimiter] = RunVar("_DECODERS")
_THREADS: RunVar[ThreadPoolExecutor] = RunVar("_THREADS")


def decoders() -> CapacityLimiter:
    """Limits an event loop to as many decoding threads as there are processors, since each takes one and some megabytes."""
    try:
        return _DECODERS.get()
    except LookupError:
        _DECODERS.set(limiter := CapacityLimiter(os.cpu_count() or 1))
        return limiter


async def in_decoder(work: Callable[..., _Result], *args: Any) -> _Result:
    """Call what decodes in one of the event loop's few threads for it: what one has allocated stays with it and serves the next call."""
    async with (limiter := decoders()):
        try:
            threads = _THREADS.get()
        except LookupError:
            _THREADS.set(threads := ThreadPoolExecutor(int(limiter.total_tokens), "decoder"))
        # As `to_thread.run_sync`: who waits is not let go while the thread is at work.
        with CancelScope(shield=True):
            return await asyncio.get_running_loop().run_in_executor(threads, partial(work, *args))
    raise AssertionError("unreachable: nobody cancels the scope")


class MediaNotReadable(ValueError):
    """When a file is not the medium that it should be, or is cut short."""


class FormatUnknown(MediaNotReadable):
    """When a file is in no media format that is known here."""


@dataclass(frozen=True)
class MediaInfo:
    """What is known of a media file, sides as they are shown; None stands for what is not known, never for a guess."""

    format: MediaFormat
    kind: AssetKind
    bytes: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    codec: str | None = None
    has_sound: bool | None = None
    c2pa: bool | None = None
    warnings: tuple[str, ...] = ()

    @property
    def media_type(self) -> str:
        """For example `"video/mp4"`."""
        return media_type_of(self.format)

    @property
    def extension(self) -> str:
        """The extension of its file, without the dot."""
        return extension_of(self.format)


def can_measure(kind: AssetKind) -> bool:
    """Whether sizes and times of such media can be measured, which takes the extra `media`."""
    return importlib.util.find_spec("PIL" if kind == "image" else "av") is not None


def probe(path: Path, *, on_video: Callable[[Any, Any], None] | None = None) -> MediaInfo:
    """Look at a media file. This blocks: call it in a thread.

    Args:
        path: The file.
        on_video: Called with PyAV's container of a video that is whole and its first frame, while it is open: to open one costs as much as
            to decode a frame.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        form = sniff(file.read(HEAD_BYTES))
    if size == 0:
        raise MediaNotReadable("it is empty")
    if form is None:
        raise FormatUnknown("its media format is not known")
    if form in {"mp4", "mov", "avif"}:
        _check_boxes(path, size, index=b"meta" if form == "avif" else b"moov")
    if form == "svg":
        _check_svg(path, size)
    kind = kind_of(form)
    # A drawing has no pixels, and no reader here.
    if form == "svg" or not can_measure(kind):
        return MediaInfo(form, kind, size)
    measures = _measure_picture(path, form) if kind == "image" else _measure_stream(path, kind, on_video)
    return MediaInfo(form, kind, size, **measures)


def _check_boxes(path: Path, size: int, *, index: bytes) -> None:
    """Check that the last box of an MP4 or AVIF file ends where the file ends: each box says how long it is."""
    position, seen = 0, set[bytes]()
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:
                length = size - position
            seen.add(name)
            if length < 8 or position + length > size:
                raise MediaNotReadable(f"it is cut short or damaged at byte {position:,} of {size:,}")
            position += length
    if index not in seen:
        raise MediaNotReadable("it is cut short: its index is missing")


def _check_svg(path: Path, size: int) -> None:
    with path.open("rb") as file:
        file.seek(max(0, size - 4096))
        end = file.read().rstrip()
    # Behind the root element comments may stand.
    if not re.search(rb"</(svg:)?svg\s*>|/>$", end):
        raise MediaNotReadable("it is cut short: its end is missing")


@contextmanager
def _reading(what: str) -> Generator[None, None, None]:
    """Translate what Pillow and FFmpeg raise for damaged files, which is nearly every class there is."""
    try:
        yield
    except (MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise MediaNotReadable(f"it does not open as {what}: {error}") from error


def _measure_picture(path: Path, form: MediaFormat) -> dict[str, Any]:
    from PIL import Image, features  # an extra, and slow to import

    with _reading("a picture"):
        try:
            with cast("Any", Image.open(path)) as image:
                width, height = image.size
                # Each way reads the file to its end, the first two without all of its pixels in memory.
                if image.format == "PNG":
                    # `verify` must come first, and a PNG's orientation would need its pixels; hardly any has one.
                    image.verify()
                    return {"width": width, "height": height}
                # Orientations 5 to 8 are shown on their side: https://www.exif.org/Exif2-2.PDF, tag 274
                is_turned = image.getexif().get(274) in {5, 6, 7, 8}
                if image.format == "JPEG":
                    image.draft("L", (1, 1))
                    image.load()
                elif width * height <= MOST_PIXELS:
                    image.load()
        except Image.DecompressionBombError:
            return {}
        except Image.UnidentifiedImageError:
            # Pillow reads AVIF from 11.3 on, and not in every build.
            if form != "avif" or ("AVIF" in Image.OPEN and features.check("avif")):
                raise
            return {}
    return {"width": height if is_turned else width, "height": width if is_turned else height}


def _measure_stream(path: Path, kind: AssetKind, on_video: Callable[[Any, Any], None] | None) -> dict[str, Any]:
    import av  # an extra, and slow to import

    with _reading("a video" if kind == "video" else "a sound"), cast("Any", av.open(str(path), mode="r")) as container:
        if kind == "audio":
            return _measure_sound(container)
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        width, height = stream.width, stream.height
        if on_video is None or width * height <= FEW_PIXELS:
            stream.codec_context.thread_count = 1
        frame = next(container.decode(stream), None)
        if frame is None:
            raise ValueError("it has no frames")
        is_turned = int(getattr(frame, "rotation", 0)) % 180 == 90
        measures = {
            "width": height if is_turned else width,
            "height": width if is_turned else height,
            "duration_s": None if container.duration is None else container.duration / av.time_base,
            "fps": None if not stream.average_rate else float(stream.average_rate),
            "codec": stream.codec_context.name,
            "has_sound": bool(container.streams.audio),
        }
        if on_video is not None:
            on_video(container, frame)
        return measures


def _measure_sound(container: Any) -> dict[str, Any]:
    if not container.streams.audio:
        raise ValueError("it has no sound")
    stream = container.streams.audio[0]
    # The container's own figure is an estimate from the bit rate for many MP3 files; the packets are the truth.
    ticks = sum(packet.duration or 0 for packet in container.demux(stream))
    return {"duration_s": float(ticks * stream.time_base) if ticks else None, "codec": stream.codec_context.name}
