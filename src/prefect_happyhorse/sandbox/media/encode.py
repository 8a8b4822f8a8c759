"""Writing results as files: PNG, JPEG and WebP through Pillow, H.264 MP4 through PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from prefect_happyhorse.sandbox.media.card import Card, MediaSpec

__all__ = ["write"]


def write(spec: MediaSpec, path: Path) -> None:
    """Make a result."""
    card = Card(spec)
    if spec.kind == "video":
        _write_video(spec, card, path)
    elif spec.format == "png":
        card.picture().save(path, "PNG", compress_level=3)
    else:
        card.picture().save(path, spec.format.upper(), quality=spec.quality)


def _write_video(spec: MediaSpec, card: Card, path: Path) -> None:
    frames = max(1, round(spec.duration_s * spec.fps))
    # faststart puts the index before the pictures, so that a player can begin before it has the whole file.
    # PyAV's stubs leave these two partly untyped.
    container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    frame_class: Any = VideoFrame
    with container:
        stream = container.add_stream("libx264", rate=spec.fps, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.codec_context.thread_count = 1
        # A result that says nothing stands still too, so that making it costs next to nothing.
        still = None if spec.heading else frame_class.from_image(card.picture()).reformat(format="yuv420p")
        for index in range(frames):
            frame = still or frame_class.from_image(card.frame(index, frames))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
