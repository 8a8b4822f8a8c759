"""Small real media files, made on the spot."""

from __future__ import annotations

import base64
import io
import struct
from fractions import Fraction
from typing import Any

import av
from PIL import Image, ImageDraw, features

__all__ = ["AVIF", "DRAWING", "READS_AVIF", "movie", "picture", "sound", "turned", "with_padding"]


# Written out, since not every Pillow writes it: 64 by 48, orange.
AVIF = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAA"
    "AQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAALgAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAA"
    "FGlzcGUAAAAAAAAAQAAAADAAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAA"
    "Nm1kYXQSAAoJGBV/vaICGg0IMh8cR4eF3dNNNMLAAADPyinHcg856PrrOxR3rDgJMvVX"
)
READS_AVIF = ".avif" in Image.registered_extensions() and features.check("avif")

DRAWING = b"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- A horse, seen from afar -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>
"""


def picture(form: str = "png", width: int = 640, height: int = 480, colour: str = "orange", **options: Any) -> bytes:
    """A picture with a bar across it."""
    image = Image.new("RGB", (width, height), colour)
    ImageDraw.Draw(image).rectangle((0, height // 3, width, height // 2), fill="navy")
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG"}.get(form, form.upper()), **options)
    return buffer.getvalue()


def movie(
    form: str = "mp4", *, width: int = 320, height: int = 240, frames: int = 12, fps: int = 12, dark_frames: int = 0, seed: int = 0
) -> bytes:
    """A video whose colour changes from frame to frame, with green along its upper edge; the first frames may be black."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream("libvpx" if form == "webm" else "libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            colour = (0, 0, 0) if number < dark_frames else (200, (40 + 20 * number) % 256, (seed * 37) % 256)
            image = Image.new("RGB", (width, height), colour)
            if number >= dark_frames:
                image.paste((0, 255, 0), (0, 0, width, height // 8))
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def sound(form: str = "mp3", seconds: int = 3) -> bytes:
    """A sound that is silent."""
    buffer = io.BytesIO()
    rate = 44_100
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream("libmp3lame" if form == "mp3" else "pcm_s16le", rate=rate, layout="mono")
        left = seconds * rate
        while left > 0:
            samples = min(1152, left)
            frame = av.AudioFrame(format=stream.format.name, layout="mono", samples=samples)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts = rate, seconds * rate - left
            container.mux(stream.encode(frame))
            left -= samples
        container.mux(stream.encode(None))
    return buffer.getvalue()


def with_padding(video: bytes, padding: int) -> bytes:
    """An MP4 video made longer by a box that players skip."""
    return video + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8)


def turned(video: bytes) -> bytes:
    """An MP4 video that says of itself that it is to be shown a quarter turn clockwise."""
    matrix = video.index(b"tkhd") + 44
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 240 << 16, 0, 1 << 30)
    return video[:matrix] + quarter + video[matrix + 36 :]
