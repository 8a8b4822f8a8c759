"""What an input medium is, found from its bytes, and whether it stays within a route's limits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import av
import av.error
from PIL import Image, ImageOps

from prefect_happyhorse.catalog import MediaLimit
from prefect_happyhorse.domain.values import AssetKind

__all__ = ["Probe", "find_limit_problems", "probe"]

_KINDS: dict[str, AssetKind] = {"clip": "video", "video": "video", "reference_videos": "video", "audio": "audio", "voice": "audio"}
_THUMBNAIL_PX = 480


@dataclass(frozen=True)
class Probe:
    """What an input medium is."""

    kind: AssetKind
    format: str
    size: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    thumbnail: bytes | None = None


def probe(file: IO[bytes], source: str, *, with_thumbnail: bool) -> Probe:
    """Look into the medium that a request field holds."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    kind = _KINDS.get(source, "image")
    look = _probe_picture if kind == "image" else _probe_stream
    return look(file, size, kind, with_thumbnail=with_thumbnail)


def _probe_picture(file: IO[bytes], size: int, kind: AssetKind, *, with_thumbnail: bool) -> Probe:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file)
            with picture:
                thumbnail = _thumbnail(picture) if with_thumbnail else None
                return Probe(kind, (picture.format or "unknown").lower(), size, *picture.size, thumbnail=thumbnail)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("is not a readable picture") from error


def _probe_stream(file: IO[bytes], size: int, kind: AssetKind, *, with_thumbnail: bool) -> Probe:
    is_quicktime = file.read(12)[4:] == b"ftypqt  "
    file.seek(0)
    try:
        # The stubs of PyAV and Pillow lose the type behind `with ... as`.
        container = av.open(file, "r")
        with container:
            if not (container.streams.video if kind == "video" else container.streams.audio):
                raise ValueError(f"holds no {kind}")
            duration_s = container.duration / av.time_base if container.duration else None
            names = set(container.format.name.split(","))
            if any(name.endswith("_pipe") for name in names):
                raise ValueError(f"holds a picture and no {kind}")
            if kind == "audio":
                return Probe(kind, "mp3" if "mp3" in names else min(names), size, duration_s=duration_s)
            stream = container.streams.video[0]
            container.seek((container.duration or 0) // 2)
            frame = next(iter(container.decode(video=0)))
            thumbnail = _thumbnail(cast("Any", frame).to_image()) if with_thumbnail else None
            fps = float(stream.average_rate) if stream.average_rate else None
            form = min(names) if "mp4" not in names else "mov" if is_quicktime else "mp4"
            return Probe(kind, form, size, frame.width, frame.height, duration_s, fps, thumbnail)
    except (av.error.FFmpegError, StopIteration, OSError) as error:
        raise ValueError(f"is not a readable {kind}") from error


def _thumbnail(picture: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    if upright.has_transparency_data:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
    buffer = io.BytesIO()
    upright.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def find_limit_problems(found: Probe, limit: MediaLimit) -> Iterator[str]:
    """Where a medium passes the limits of a route."""
    if limit.formats and found.format not in limit.formats:
        yield f"its format must be one of {', '.join(limit.formats)} (got {found.format})"
    if found.size > limit.max_bytes:
        yield f"it must have at most {limit.max_bytes} bytes (got {found.size})"
    if found.width and found.height:
        short, long = sorted((found.width, found.height))
        size = f"(got {found.width}x{found.height})"
        least = max(limit.min_side_px or 0, limit.min_short_side_px or 0)
        if short < least:
            yield f"its sides must be at least {least} pixels {size}"
        if limit.max_long_side_px and long > limit.max_long_side_px:
            yield f"its sides must be at most {limit.max_long_side_px} pixels {size}"
        if limit.aspect and not limit.aspect[0] <= found.width / found.height <= limit.aspect[1]:
            yield f"its width to height must be between {limit.aspect[0]:g} and {limit.aspect[1]:g} {size}"
    # A container's playing time is rounded to its frames, so a tenth of a second either way is within the limit.
    if limit.duration_s and found.duration_s is not None and not limit.duration_s[0] - 0.1 <= found.duration_s <= limit.duration_s[1] + 0.1:
        yield f"it must play between {limit.duration_s[0]:g} and {limit.duration_s[1]:g} seconds (got {found.duration_s:.1f})"
    if limit.fps and found.fps is not None and not limit.fps[0] <= found.fps <= limit.fps[1]:
        yield f"it must have {limit.fps[0]:g} to {limit.fps[1]:g} frames per second (got {found.fps:g})"
    if limit.fps_above and found.fps is not None and found.fps <= limit.fps_above:
        yield f"it must have more than {limit.fps_above:g} frames per second (got {found.fps:g})"
