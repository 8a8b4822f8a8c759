"""What an input medium is, found from its bytes, and whether it stays within a route's limits."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import av
import av.error
from PIL import Image, ImageOps

from prefect_happyhorse.catalog import MediaLimit
from prefect_happyhorse.domain.assets import AssetKind

__all__ = ["Probe", "Thumb", "find_limit_problems", "kind_of", "probe"]

_KINDS: dict[str, AssetKind] = {"clip": "video", "video": "video", "reference_videos": "video", "audio": "audio", "voice": "audio"}
_THUMB_PX = 480


@dataclass(frozen=True)
class Thumb:
    """A small picture of an input medium, as JPEG."""

    sha256: str
    jpeg: bytes
    kind: AssetKind
    width: int
    height: int


@dataclass(frozen=True)
class Probe:
    """What an input medium is."""

    kind: AssetKind
    format: str
    size: int
    sha256: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    thumb: Thumb | None = None

    @property
    def ratio(self) -> float | None:
        """Width to height, or None for a sound."""
        return self.width / self.height if self.width and self.height else None


def kind_of(source: str) -> AssetKind:
    """What kind of medium a request field holds."""
    return _KINDS.get(source, "image")


def probe(file: IO[bytes], expected: AssetKind, *, with_thumb: bool) -> Probe:
    """Look into a medium."""
    digest = hashlib.sha256()
    size = 0
    while chunk := file.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    if expected == "image":
        return _probe_picture(file, size, digest.hexdigest(), with_thumb=with_thumb)
    return _probe_stream(file, head, size, digest.hexdigest(), expected, with_thumb=with_thumb)


def _probe_picture(file: IO[bytes], size: int, sha256: str, *, with_thumb: bool) -> Probe:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file)
            with picture:
                width, height = picture.size
                thumb = _thumb(picture, sha256, "image") if with_thumb else None
                return Probe("image", (picture.format or "unknown").lower(), size, sha256, width, height, thumb=thumb)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("is not a readable picture") from error


def _probe_stream(file: IO[bytes], head: bytes, size: int, sha256: str, expected: AssetKind, *, with_thumb: bool) -> Probe:
    try:
        container = av.open(file, "r")
        with container:
            streams = container.streams.video if expected == "video" else container.streams.audio
            if not streams:
                raise ValueError(f"holds no {expected}")
            duration_s = container.duration / av.time_base if container.duration else None
            names = set(container.format.name.split(","))
            if expected == "audio":
                return Probe("audio", "mp3" if "mp3" in names else min(names), size, sha256, duration_s=duration_s)
            stream = container.streams.video[0]
            container.seek((container.duration or 0) // 2)
            frame = next(iter(container.decode(video=0)))
            thumb = _thumb(cast("Any", frame).to_image(), sha256, "video") if with_thumb else None
            fps = float(stream.average_rate) if stream.average_rate else None
            return Probe("video", _video_format(names, head), size, sha256, frame.width, frame.height, duration_s, fps, thumb)
    except (av.error.FFmpegError, StopIteration, OSError) as error:
        raise ValueError(f"is not a readable {expected}") from error


def _video_format(names: set[str], head: bytes) -> str:
    if "mp4" in names:
        return "mov" if head[4:12] == b"ftypqt  " else "mp4"
    return min(names)


def _thumb(picture: Image.Image, sha256: str, kind: AssetKind) -> Thumb:
    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((_THUMB_PX, _THUMB_PX))
    if upright.mode in {"RGBA", "LA", "PA"} or "transparency" in upright.info:
        ground = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(ground, upright.convert("RGBA"))
    small = upright.convert("RGB")
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90, subsampling=0)
    return Thumb(sha256, buffer.getvalue(), kind, small.width, small.height)


def find_limit_problems(found: Probe, limit: MediaLimit) -> Iterator[str]:
    """Where a medium passes the limits of a route."""
    if found.format not in limit.formats:
        yield f"its format is {found.format}, accepted are {', '.join(limit.formats)}"
    if found.size > limit.max_bytes:
        yield f"it has {found.size} bytes, accepted are at most {limit.max_bytes}"
    if found.width and found.height:
        short, long = sorted((found.width, found.height))
        sides = f"it is {found.width}x{found.height}"
        least = max(limit.min_side_px or 0, limit.min_short_side_px or 0)
        if short < least:
            yield f"{sides}, accepted are sides from {least} pixels"
        if limit.max_long_side_px and long > limit.max_long_side_px:
            yield f"{sides}, accepted are sides up to {limit.max_long_side_px} pixels"
        if limit.aspect and not limit.aspect[0] <= found.width / found.height <= limit.aspect[1]:
            yield f"{sides}, accepted is a width to height from {limit.aspect[0]:g} to {limit.aspect[1]:g}"
    # A container's playing time is rounded to its frames, so a tenth of a second either way is within the limit.
    if limit.duration_s and found.duration_s is not None and not limit.duration_s[0] - 0.1 <= found.duration_s <= limit.duration_s[1] + 0.1:
        yield f"it plays for {found.duration_s:.1f} s, accepted are {limit.duration_s[0]:g} to {limit.duration_s[1]:g} s"
    if limit.fps_above and found.fps is not None and found.fps <= limit.fps_above:
        yield f"it has {found.fps:g} frames per second, accepted are more than {limit.fps_above:g}"
