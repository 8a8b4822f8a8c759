"""What a media file is, told from its bytes: its format by magic, its sizes by Pillow and PyAV where they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from prefect_happyhorse.domain.assets import AssetKind

__all__ = ["HEAD_BYTES", "MediaFormat", "MediaNotReadable", "Probe", "can_measure", "extension_of", "format_of", "kind_of", "media_type_of", "probe", "sniff"]

MediaFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "mp4", "mov", "webm", "mp3", "wav"]

HEAD_BYTES = 64
"""How much of a file's start `sniff` looks at."""

_FACTS: dict[MediaFormat, tuple[AssetKind, str, str]] = {
    "jpeg": ("image", "image/jpeg", "jpg"),
    "png": ("image", "image/png", "png"),
    "webp": ("image", "image/webp", "webp"),
    "bmp": ("image", "image/bmp", "bmp"),
    "gif": ("image", "image/gif", "gif"),
    "mp4": ("video", "video/mp4", "mp4"),
    "mov": ("video", "video/quicktime", "mov"),
    "webm": ("video", "video/webm", "webm"),
    "mp3": ("audio", "audio/mpeg", "mp3"),
    "wav": ("audio", "audio/wav", "wav"),
}
_ALIASES = {"image/jpg": "jpeg", "image/x-ms-bmp": "bmp", "audio/mp3": "mp3", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav"}
# Brands of ISO base media files that are pictures or sound: https://mp4ra.org/registered-types/brands
_FOREIGN_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"M4A ", b"M4B ", b"crx "})
_BOXES = frozenset({b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})


class MediaNotReadable(ValueError):
    """When a file is not the medium that it claims to be, or is cut short."""


@dataclass(frozen=True)
class Probe:
    """What is known of a media file; None stands for what is not known, never for a guess.

    Args:
        format: Its format.
        kind: Image, video or audio.
        bytes: Its length.
        width: Its width in pixels, as it is shown.
        height: Its height in pixels, as it is shown.
        duration_s: Its playing time in seconds.
        fps: Frames per second, on average.
        codec: How its pictures, or else its sound, are coded; for example `"h264"`.
    """

    format: MediaFormat
    kind: AssetKind
    bytes: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    codec: str | None = None

    @property
    def media_type(self) -> str:
        """Its media type, for example `"video/mp4"`."""
        return media_type_of(self.format)

    @property
    def extension(self) -> str:
        """The extension of its file, without the dot."""
        return extension_of(self.format)


def sniff(head: bytes) -> MediaFormat | None:
    """The format of a file by its first bytes.

    Args:
        head: The first 64 bytes, or all there are.

    Returns:
        The format, or None when it is none of those that are known here.

    Example:
        >>> sniff(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(24)), sniff(b"<!DOCTYPE html>")
        ('png', None)
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[:4] == b"RIFF":
        return cast("dict[bytes, MediaFormat]", {b"WEBP": "webp", b"WAVE": "wav"}).get(head[8:12])
    if head[:2] == b"BM" and _is_bitmap(head):
        return "bmp"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head[:HEAD_BYTES] else None
    return _sniff_boxes(head) or _sniff_mp3(head)


def _is_bitmap(head: bytes) -> bool:
    # "BM" alone also starts ordinary text; the size of the next header tells.
    return len(head) >= 18 and int.from_bytes(head[14:18], "little") in {12, 16, 40, 52, 56, 64, 108, 124}


def _sniff_boxes(head: bytes) -> MediaFormat | None:
    """MP4 or QuickTime: https://developer.apple.com/documentation/quicktime-file-format"""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand == b"qt  ":
            return "mov"
        return None if brand in _FOREIGN_BRANDS else "mp4"
    return "mov" if head[4:8] in _BOXES else None


def _sniff_mp3(head: bytes) -> MediaFormat | None:
    """MPEG audio, layer III: an ID3 tag, or the sync word with sensible bit rate and sampling rate behind it."""
    if head.startswith(b"ID3"):
        return "mp3"
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    is_sensible = head[1] & 0x18 != 0x08 and head[2] >> 4 not in {0, 15} and head[2] & 0x0C != 0x0C
    return "mp3" if is_sensible else None


def kind_of(format: MediaFormat) -> AssetKind:
    """What a format holds: image, video or audio.

    Args:
        format: The format.

    Example:
        >>> kind_of("webm")
        'video'
    """
    return _FACTS[format][0]


def media_type_of(format: MediaFormat) -> str:
    """The media type of a format.

    Args:
        format: The format.

    Example:
        >>> media_type_of("mov")
        'video/quicktime'
    """
    return _FACTS[format][1]


def extension_of(format: MediaFormat) -> str:
    """The extension of a format's files, without the dot.

    Args:
        format: The format.

    Example:
        >>> extension_of("jpeg")
        'jpg'
    """
    return _FACTS[format][2]


def format_of(media_type: str) -> MediaFormat | None:
    """The format that a media type names, or None when it is none of those that are known here.

    Args:
        media_type: The media type, with or without parameters.

    Example:
        >>> format_of("image/jpeg; charset=binary"), format_of("text/html")
        ('jpeg', None)
    """
    plain = media_type.partition(";")[0].strip().lower()
    for format, facts in _FACTS.items():
        if plain == facts[1]:
            return format
    return cast("MediaFormat | None", _ALIASES.get(plain))


def can_measure(kind: AssetKind) -> bool:
    """Whether sizes and times of such media can be told, which takes the extra `media`.

    Args:
        kind: Image, video or audio.
    """
    return importlib.util.find_spec("PIL" if kind == "image" else "av") is not None


def probe(path: Path) -> Probe:
    """Look at a media file. This blocks: call it in a thread.

    Args:
        path: The file.

    Returns:
        What is known of it. Without the extra `media` only its format and length are.

    Raises:
        MediaNotReadable: When it is of no known format, does not open as what its first bytes claim, or is cut short.
        OSError: When the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        format = sniff(file.read(HEAD_BYTES))
    if format is None:
        raise MediaNotReadable("it is empty" if size == 0 else "it is of no known media format")
    if format in {"mp4", "mov"}:
        _check_boxes(path, size)
    kind = kind_of(format)
    if not can_measure(kind):
        return Probe(format, kind, size)
    facts = _picture_facts(path) if kind == "image" else _stream_facts(path, format)
    return Probe(format, kind, size, **facts)


def _check_boxes(path: Path, size: int) -> None:
    """An MP4 file is a row of boxes, each of which says how long it is: the last must end where the file ends."""
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
    if b"moov" not in seen:
        raise MediaNotReadable("it is cut short: its index is missing")


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Translate what Pillow and FFmpeg raise for damaged files; they use nearly every class there is."""
    try:
        yield
    except (MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise MediaNotReadable(f"it does not open as {what}: {error}") from error


def _picture_facts(path: Path) -> dict[str, Any]:
    from PIL import Image  # an extra, and slow to import

    with _reading("a picture"):
        try:
            with Image.open(path) as image:
                width, height = image.size
                # Orientations 5 to 8 are shown on their side: https://www.exif.org/Exif2-2.PDF, tag 274
                turned = image.getexif().get(274) in {5, 6, 7, 8}
                # Each way reads the file to its end, and the first two without holding all pixels in memory.
                if image.format == "PNG":
                    image.verify()
                elif image.format == "JPEG":
                    image.draft("L", (1, 1))
                    image.load()
                else:
                    image.load()
        except Image.DecompressionBombError:
            return {}
    return {"width": height if turned else width, "height": width if turned else height}


def _stream_facts(path: Path, format: MediaFormat) -> dict[str, Any]:
    import av  # an extra, and slow to import

    with _reading("a video" if kind_of(format) == "video" else "a sound"), av.open(str(path), mode="r") as container:
        if kind_of(format) == "audio":
            return _sound_facts(container)
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        width, height = stream.width, stream.height
        frame = next(container.decode(stream), None)
        if frame is None:
            raise ValueError("it has no frame")
        turned = int(getattr(frame, "rotation", 0)) % 180 == 90
        return {
            "width": height if turned else width,
            "height": width if turned else height,
            "duration_s": None if container.duration is None else container.duration / av.time_base,
            "fps": None if not stream.average_rate else float(stream.average_rate),
            "codec": stream.codec_context.name,
        }


def _sound_facts(container: Any) -> dict[str, Any]:
    if not container.streams.audio:
        raise ValueError("it has no sound")
    stream = container.streams.audio[0]
    # The container's own figure is an estimate from the bit rate for many MP3 files; the packets are the truth.
    ticks = sum(packet.duration or 0 for packet in container.demux(stream))
    return {"duration_s": float(ticks * stream.time_base) if ticks else None, "codec": stream.codec_context.name}
