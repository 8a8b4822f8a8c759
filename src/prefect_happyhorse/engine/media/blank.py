"""Whether a video is black, stands still or is silent, by a few of its frames and packets of sound. Everything here blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from operator import sub
from typing import Any

from prefect_happyhorse.engine.media.probe import MOST_PIXELS

__all__ = ["blank_warnings", "length_s"]

_POINTS = 8
# A coding with few key frames is decoded frame by frame from its start; one that moves differs within the first of them.
_WALKED_FRAMES, _EACH = 160, 4
_WIDTH, _HEIGHT = 64, 36
# Out of 255. Video in the range of television has 16 for black.
_BLACK = 20.0
# How far a part of a picture that is coded twice may be off, and all of it on average.
_SAME_PART, _SAME_PICTURE = 6, 1.0
_WALKED_PACKETS, _PACKETS_A_POINT = 1000, 12
# -60 dB of 16 bits.
_QUIET = 33


def blank_warnings(container: Any, first: Any, on_frame: Callable[[Any], None]) -> tuple[str, ...]:
    """What is wrong with a video; of what cannot be told nothing is said.

    Args:
        container: It, opened by PyAV.
        first: Its first frame, decoded.
        on_frame: Called with the frames of its start, in their order, as far as they are decoded here.
    """
    return (*_picture_warnings(container, first, on_frame), *_sound_warnings(container))


def length_s(container: Any) -> float:
    """How long what is in PyAV's container lasts, in seconds; 0 where it does not say."""
    import av

    return 0.0 if container.duration is None else container.duration / av.time_base


def _picture_warnings(container: Any, first_frame: Any, on_frame: Callable[[Any], None]) -> Iterator[str]:
    stream = container.streams.video[0]
    if stream.width * stream.height > MOST_PIXELS:
        return
    first: bytes | None = None
    is_black = is_still = True
    seen_s, looked_at = 0.0, 0
    for time_s, luma in _lumas(container, stream, first_frame, on_frame):
        first = luma if first is None else first
        is_black = is_black and sum(luma) < _BLACK * len(luma)
        is_still = is_still and _is_same(luma, first)
        seen_s, looked_at = max(seen_s, time_s), looked_at + 1
        if not is_black and not is_still:
            return
    # What ends before half of the video was looked at says nothing of the rest.
    if looked_at < 2 or seen_s < length_s(container) / 2:
        return
    if is_black:
        yield "it is black: so are all frames that were looked at"
    elif is_still:
        yield "it stands still: all frames that were looked at are the same"


def _is_same(luma: bytes, first: bytes) -> bool:
    if luma == first:
        return True
    off = [*map(abs, map(sub, luma, first))]
    return max(off) <= _SAME_PART and sum(off) <= _SAME_PICTURE * len(off)


def _lumas(container: Any, stream: Any, first_frame: Any, on_frame: Callable[[Any], None]) -> Iterator[tuple[float, bytes]]:
    """Small grey pictures of frames: of the first ones, and of key frames spread over the rest."""
    import av
    from av.video.reformatter import VideoReformatter

    scaler = VideoReformatter()

    def small(frame: Any) -> tuple[float, bytes]:
        plane = scaler.reformat(frame, _WIDTH, _HEIGHT, "gray", interpolation="AREA").planes[0]
        lines = memoryview(plane)
        length = abs(plane.line_size)
        return frame.time or 0.0, b"".join(lines[row * length : row * length + _WIDTH] for row in range(_HEIGHT))

    stream.codec_context.skip_frame = "NONREF"
    walked_s = 0.0
    for number, frame in enumerate(chain((first_frame,), islice(container.decode(stream), _WALKED_FRAMES))):
        walked_s = frame.time or 0.0
        on_frame(frame)
        if number % _EACH == 0:
            yield small(frame)
    stream.codec_context.skip_frame = "NONKEY"
    for at_s in _points(container, walked_s):
        container.seek(int(at_s * av.time_base))
        if (frame := next(container.decode(stream), None)) is not None and (frame.time or 0.0) > walked_s:
            yield small(frame)


def _sound_warnings(container: Any) -> Iterator[str]:
    import av

    if not container.streams.audio:
        return
    resampler = av.AudioResampler(format="s16")
    heard = False
    for frame in _sounds(container, container.streams.audio[0]):
        for converted in resampler.resample(frame):
            # A plane may be longer than what is in it.
            samples = memoryview(converted.planes[0])[: converted.samples * 2 * len(converted.layout.channels)].cast("h")
            heard = heard or len(samples) > 0
            if max(map(abs, samples), default=0) > _QUIET:
                return
    if heard:
        yield "its sound is silent"


def _sounds(container: Any, stream: Any) -> Iterator[Any]:
    """The first packets of a sound, decoded, and a few at points spread over the rest."""
    container.seek(0)
    walked_s = 0.0
    for frame in islice(container.decode(stream), _WALKED_PACKETS):
        walked_s = frame.time or 0.0
        yield frame
    for at_s in _points(container, walked_s):
        container.seek(int(at_s / stream.time_base), stream=stream)
        yield from islice(container.decode(stream), _PACKETS_A_POINT)


def _points(container: Any, after_s: float) -> Iterator[float]:
    """Times spread evenly over a video, in seconds; those up to one are left out."""
    whole_s = length_s(container)
    return (at_s for number in range(1, _POINTS) if (at_s := whole_s * number / _POINTS) > after_s)
