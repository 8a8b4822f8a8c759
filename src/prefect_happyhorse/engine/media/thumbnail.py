"""Small pictures of media, for a card in a user interface."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any, cast

from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.media.probe import MediaNotReadable, can_measure

__all__ = ["poster", "thumbnail", "thumbnail_path"]

_MOST_FRAMES = 120
_DARK = 16.0
_QUALITIES = (82, 70, 55, 40, 25)


def poster(path: Path, kind: AssetKind, *, max_side_px: int = 480, max_bytes: int = 60_000) -> bytes | None:
    """A small JPEG of a picture, or of a frame in the course of a video. This blocks: call it in a thread."""
    if kind == "audio" or not can_measure("image") or not can_measure(kind):
        return None
    try:
        picture = _picture(path, max_side_px) if kind == "image" else _frame(path, max_side_px)
    except (MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise MediaNotReadable(f"it gives no poster: {error}") from error
    return _encode(picture, max_side_px, max_bytes)


def thumbnail(jpeg: bytes, *, max_side_px: int) -> bytes:
    """A smaller JPEG of a poster, for where many stand side by side. This blocks: call it in a thread."""
    if not can_measure("image"):
        return jpeg
    from PIL import Image

    with cast("Any", Image.open(io.BytesIO(jpeg))) as image:
        return jpeg if max(image.size) <= max_side_px else _encode(image, max_side_px, len(jpeg))


def _picture(path: Path, max_side_px: int) -> Any:
    from PIL import Image, ImageOps

    with cast("Any", Image.open(path)) as image:
        # For a JPEG this decodes a smaller picture at once; for the rest it does nothing.
        image.draft("RGB", (max_side_px, max_side_px))
        return _on_white(ImageOps.exif_transpose(image))


def _on_white(image: Any) -> Any:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = image.convert("RGBA")
    ground = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(ground, opaque).convert("RGB")


def _frame(path: Path, max_side_px: int) -> Any:
    """The first frame from a third of the video on that is not dark; else one from its start; else the brightest that was seen."""
    import av

    brightest: tuple[float, Any] | None = None
    with cast("Any", av.open(str(path), mode="r")) as container:
        stream = container.streams.video[0]
        # Frames on which no other depends are not needed to get to the one that is shown, and are most of them.
        stream.codec_context.skip_frame = "NONREF"
        length_s = 0.0 if container.duration is None else container.duration / av.time_base
        for start_s in (length_s / 3, 0.0):
            container.seek(int(start_s * av.time_base))
            # A seek ends at the key frame before, which may well be the very first.
            frames = (frame for frame in container.decode(stream) if frame.time is None or frame.time >= start_s)
            for frame in islice(frames, _MOST_FRAMES):
                brightness = _brightness(frame)
                if brightness >= _DARK:
                    return _upright(frame, max_side_px)
                if brightest is None or brightness > brightest[0]:
                    brightest = brightness, frame
    if brightest is None:
        raise ValueError("it has no frame")
    return _upright(brightest[1], max_side_px)


def _brightness(frame: Any) -> float:
    from PIL import ImageStat

    return ImageStat.Stat(frame.to_image(width=32, height=32).convert("L")).mean[0]


def _upright(frame: Any, max_side_px: int) -> Any:
    # Made smaller while its colours are converted, so that no picture of full size is ever made.
    scale = min(1.0, max_side_px / max(frame.width, frame.height))
    image = frame.to_image(width=max(1, round(frame.width * scale)), height=max(1, round(frame.height * scale)))
    turn = int(getattr(frame, "rotation", 0)) % 360
    return image.rotate(turn, expand=True) if turn else image


def _encode(image: Any, max_side_px: int, max_bytes: int) -> bytes:
    side = max_side_px
    while True:
        small = image.copy()
        small.thumbnail((side, side))
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= max_bytes or side == 1:
                return buffer.getvalue()
        side = max(1, side * 3 // 4)


def thumbnail_path(sha256: str) -> str:
    """Where the small picture of an asset lies in its store."""
    return f"journal/thumbnails/{sha256}.jpg"
