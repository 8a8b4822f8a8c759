"""Writing results as files: PNG, JPEG and WebP through Pillow, H.264 MP4 through PyAV."""

from __future__ import annotations

from pathlib import Path

import av
from av.video.frame import VideoFrame

from prefect_happyhorse.sandbox.media.card import Card, MediaSpec

__all__ = ["write"]


def write(spec: MediaSpec, path: Path) -> None:
    """Make a result.

    Args:
        spec: What to make.
        path: Where to.
    """
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
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=spec.fps, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for index in range(frames):
            frame = VideoFrame.from_image(card.frame(index, frames))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
