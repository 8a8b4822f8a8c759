"""Thumbnails of pictures and videos, for cards and galleries."""

from __future__ import annotations

import io
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.media.blank import blank_warnings, length_s
from prefect_happyhorse.engine.media.probe import FEW_PIXELS, MOST_PIXELS, MediaInfo, MediaNotReadable, can_measure, probe

__all__ = ["probe_and_thumbnail", "smaller", "thumbnail", "thumbnail_path"]

_log = logging.getLogger(__name__)

# A JPEG can be decoded at an eighth of its size; all else is in memory as a whole, and twice while it is made smaller.
_MOST_PIXELS_AT_ONCE = 17_000_000
_MOST_FRAMES = 120
_SIZE, _MAX_BYTES = 480, 60_000
_DARK = 16.0
# To set one up for a pair of sizes takes longer than to use it. As many as are in use at a time, each by one thread.
_SCALERS: list[Any] = []
_QUALITIES = (82, 70, 55, 40, 25)


def thumbnail_path(sha256: str) -> str:
    """Where the thumbnail of an asset lies in its store."""
    return f"journal/thumbnails/{sha256}.jpg"


def thumbnail(source: Path | bytes, kind: AssetKind, *, size: int = _SIZE, max_bytes: int = _MAX_BYTES) -> bytes | None:
    """A JPEG of a picture, or of a frame of a video, with at most `size` pixels a side.

    None for a sound, for what is too large to be decoded in little memory, and without Pillow and PyAV. This blocks: call it in a thread.
    """
    if kind == "audio" or not can_measure("image") or not can_measure(kind):
        return None
    with _translated():
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        image = _picture(file, size) if kind == "image" else _frame(file, size)
        return None if image is None else _encode(image, size, max_bytes)


def smaller(jpeg: bytes, size: int) -> bytes:
    """A thumbnail with at most `size` pixels a side, no longer than it was; without Pillow it is as it was. This blocks."""
    if not can_measure("image"):
        return jpeg
    from PIL import Image

    with _translated(), cast("Any", Image.open(io.BytesIO(jpeg))) as image:
        if max(image.size) <= size:
            return jpeg
        sides = _draft(image, size)
        # It is upright and hides nothing. Half as long as what is finer, which nobody can tell from it at this size.
        return _encode(image.resize(sides, Image.Resampling.BILINEAR), size, len(jpeg))


@contextmanager
def _translated() -> Generator[None]:
    """Turn what decoders raise, which is of nearly every class there is, into MediaNotReadable."""
    try:
        yield
    except (MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise MediaNotReadable(f"no thumbnail can be made of it: {error}") from error


def probe_and_thumbnail(path: Path) -> tuple[MediaInfo, bytes | None]:
    """As `probe`, with what is blank, and the thumbnail or None where none can be made; a video is opened once for all. This blocks."""
    made: list[bytes] = []
    warnings: list[str] = []
    passed: list[Any] = []

    def on_video(container: Any, first: Any) -> None:
        third_s = length_s(container) / 3

        def on_frame(frame: Any) -> None:
            if not passed and frame.time is not None and frame.time >= third_s:
                passed.append(frame)

        # The file itself may well be whole.
        with suppress(MediaNotReadable), _translated():
            warnings.extend(blank_warnings(container, first, on_frame))
        with suppress(MediaNotReadable), _translated():
            if (image := _frame_of(container, _SIZE, passed)) is not None:
                made.append(_encode(image, _SIZE, _MAX_BYTES))

    info = probe(path, on_video=on_video)
    # Only once it was looked at.
    info = replace(info, warnings=tuple(warnings))
    if info.kind == "image":
        with suppress(MediaNotReadable, OSError):
            return info, thumbnail(path, "image")
    return info, made[0] if made else None


def _is_too_large(width: int, height: int, most: int) -> bool:
    if width * height <= most:
        return False
    _log.info("No thumbnail of %d x %d pixels is made: it must have at most %d to be decoded in little memory.", width, height, most)
    return True


def _picture(file: Path | io.BytesIO, size: int) -> Any:
    from PIL import Image, ImageOps

    with cast("Any", Image.open(file)) as image:
        if _is_too_large(image.width, image.height, MOST_PIXELS if image.format == "JPEG" else _MOST_PIXELS_AT_ONCE):
            return None
        _draft(image, size)
        # Made smaller before anything else, since each step takes a picture of its own.
        small = image if image.mode in {"L", "RGB", "RGBA"} and not _is_cut_out(image) else image.convert("RGBA")
        small.thumbnail((size, size))
        return _on_white(ImageOps.exif_transpose(small))


def _draft(image: Any, size: int) -> tuple[int, ...]:
    """The sides that a picture is to have; a JPEG is decoded smaller at once, with no side below these."""
    scale = min(1.0, size / max(image.size))
    sides = tuple(max(1, round(side * scale)) for side in image.size)
    image.draft("RGB", sides)
    return sides


def _is_cut_out(image: Any) -> bool:
    # One colour stands for nothing, which would be mixed with its neighbours.
    return image.mode != "RGBA" and image.has_transparency_data


def _on_white(image: Any) -> Any:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _frame(file: Path | io.BytesIO, size: int) -> Any:
    import av

    with cast("Any", av.open(file if isinstance(file, io.BytesIO) else str(file), mode="r")) as container:
        stream = container.streams.video[0]
        if stream.width * stream.height <= FEW_PIXELS:
            stream.codec_context.thread_count = 1
        return _frame_of(container, size)


def _frames_from(container: Any, start_s: float) -> Iterator[Any]:
    """A video's frames from a time on; a seek lands on the key frame before, which may be the very first."""
    import av

    container.seek(int(start_s * av.time_base))
    for frame in container.decode(container.streams.video[0]):
        if frame.time is None or frame.time >= start_s:
            yield frame


def _frame_of(container: Any, size: int, passed: Sequence[Any] = ()) -> Any:
    """The first frame after a third of the video that is not dark; else one from its start; else the brightest; None if too large."""
    from PIL import ImageStat

    brightest: tuple[float, Any] | None = None
    stream = container.streams.video[0]
    if _is_too_large(stream.width, stream.height, MOST_PIXELS):
        return None
    # Most frames are ones that no other depends on; skipping them makes the way to the frame that is shown short.
    stream.codec_context.skip_frame = "NONREF"
    # What comes first was decoded already, where that is so.
    for frames in (passed, _frames_from(container, length_s(container) / 3), _frames_from(container, 0.0)):
        for frame in islice(frames, _MOST_FRAMES):
            image = _upright(frame, size)
            brightness = ImageStat.Stat(image.convert("L")).mean[0]
            if brightness >= _DARK:
                return image
            if brightest is None or brightness > brightest[0]:
                brightest = brightness, image
    if brightest is None:
        raise ValueError("it has no frames")
    return brightest[1]


def _upright(frame: Any, size: int) -> Any:
    from PIL import Image

    # Scaled while its colours are converted, so that no picture of full size is ever in memory.
    scale = min(1.0, size / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    scaler = _free_scaler()
    plane = scaler.reformat(frame, width, height, "rgb24").planes[0]
    _SCALERS.append(scaler)
    # As PyAV's `to_image`, which copies line by line and takes ten times as long; a frame may stand upside down in memory.
    image = Image.frombuffer("RGB", (width, height), plane, "raw", "RGB", abs(plane.line_size), 1 if plane.line_size > 0 else -1)
    rotation = int(getattr(frame, "rotation", 0)) % 360
    return image.rotate(rotation, expand=True) if rotation else image


def _free_scaler() -> Any:
    from av.video.reformatter import VideoReformatter

    try:
        return _SCALERS.pop()
    except IndexError:
        return VideoReformatter()


def _encode(image: Any, size: int, max_bytes: int) -> bytes:
    side = size
    while True:
        small = image
        if max(image.size) > side:
            small = image.copy()
            small.thumbnail((side, side))
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= max_bytes or side == 1:
                return buffer.getvalue()
        side = max(1, side * 3 // 4)
