"""Concatenate videos into one file: their packets copied where that is possible, else re-encoded. Everything here blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

__all__ = ["ConcatFailed", "concat_files"]

_AUDIO_RATE = 48_000
_AUDIO_SAMPLES = 1024
_LONGEST_GAP_S = Fraction(1, 10)


class ConcatFailed(ValueError):
    """When a video cannot be read, so that nothing can be concatenated; `position` counts the videos from 0."""

    def __init__(self, position: int = 0, reason: str = "") -> None:
        super().__init__(position, reason)
        self.position = position
        self.reason = reason

    def __str__(self) -> str:
        return f"video {self.position + 1} cannot be concatenated: {self.reason}"


class _NotCopyable(Exception):
    """When packets of equal encoding cannot stand in one file as they are, so that they have to be re-encoded."""


@dataclass(frozen=True)
class _Encoding:
    """What has to be equal in all videos for their packets to stand in one file."""

    video: tuple[object, ...]
    audio: tuple[object, ...] | None


def concat_files(files: Sequence[Path], target: Path) -> bool:
    """Concatenate videos into an MP4 file, and tell whether they had to be re-encoded. This blocks: call it in a thread."""
    if not files:
        raise ValueError("there must be at least one video (got none)")
    encodings = [_encoding_of(position, file) for position, file in enumerate(files)]
    if all(encoding == encodings[0] for encoding in encodings):
        try:
            _copy(files, target)
        except _NotCopyable:
            pass
        else:
            return False
    _reencode(files, target, with_sound=any(encoding.audio for encoding in encodings))
    return True


@contextmanager
def _opened(position: int, file: Path) -> Generator[Any]:
    import av
    from av.error import FFmpegError

    try:
        opened = cast("Any", av.open(str(file)))
    except (FFmpegError, OSError) as error:
        raise ConcatFailed(position, str(error)) from error
    with opened as container:
        if not container.streams.video:
            raise ConcatFailed(position, "it has no pictures")
        yield container


def _read(position: int, source: Iterable[Any]) -> Iterator[Any]:
    """The packets or frames of a video; an error here is the video's fault, not that of the file that is written."""
    from av.error import FFmpegError

    try:
        yield from source
    except FFmpegError as error:
        raise ConcatFailed(position, str(error)) from error


def _encoding_of(position: int, file: Path) -> _Encoding:
    with _opened(position, file) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        video = (context.name, context.width, context.height, context.pix_fmt, context.extradata, stream.average_rate, stream.time_base)
        sound = next(iter(container.streams.audio), None)
        if sound is None:
            return _Encoding(video, None)
        codec = sound.codec_context
        return _Encoding(video, (codec.name, codec.sample_rate, codec.layout.name, codec.extradata, sound.time_base))


def _copy(files: Sequence[Path], target: Path) -> None:
    import av

    with cast("Any", av.open(str(target), "w", format="mp4", options={"movflags": "faststart"})) as out:
        copier = _Copier(out)
        for position, file in enumerate(files):
            begin, end = _span(position, file)
            with _opened(position, file) as container:
                copier.add(position, container, begin, end, is_last=position == len(files) - 1)


def _span(position: int, file: Path) -> tuple[Fraction, Fraction]:
    """When the pictures of a video begin and end, in seconds by its own clock, which need not start at zero."""
    with _opened(position, file) as container:
        stream = container.streams.video[0]
        usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or 24)
        begins: list[Fraction] = []
        ends: list[Fraction] = []
        for packet in _read(position, container.demux(stream)):
            if packet.pts is not None:
                begins.append(packet.pts * packet.time_base)
                ends.append(begins[-1] + (packet.duration * packet.time_base if packet.duration else usual))
    if not begins:
        raise ConcatFailed(position, "it has no pictures")
    return min(begins), max(ends)


class _Copier:
    """An open file that packets of equally encoded videos are copied into."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._streams: dict[str, Any] = {}
        self._last_dts: dict[str, int] = {}
        self._start = Fraction(0)
        self._sound_end: Fraction | None = None

    def add(self, position: int, container: Any, begin: Fraction, end: Fraction, *, is_last: bool) -> None:
        """Append a video, whose pictures last from `begin` to `end` by its own clock."""
        streams = [container.streams.video[0], *container.streams.audio[:1]]
        for stream in streams:
            if stream.type not in self._streams:
                self._streams[stream.type] = self._stream_like(stream)
        until = self._start + end - begin
        for packet in _read(position, container.demux(streams)):
            if packet.pts is None and packet.dts is None:
                continue
            if packet.pts is None or packet.dts is None:
                raise _NotCopyable("a packet has no time")
            shift = round((self._start - begin) / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            if packet.stream.type == "video" or self._has_room(packet, None if is_last else until):
                self._put(packet)
        if not is_last and self._sound_end is not None and until - self._sound_end > _LONGEST_GAP_S:
            # Decoders overlap each packet with the one before: after a gap the end of the old sound would be heard again.
            raise _NotCopyable("the sound ends long before the pictures, and silence cannot be copied")
        self._start = until

    def _stream_like(self, stream: Any) -> Any:
        try:
            return self._out.add_stream_from_template(stream)
        except ValueError as error:
            raise _NotCopyable("MP4 cannot hold this encoding") from error

    def _has_room(self, packet: Any, until: Fraction | None) -> bool:
        """Whether a packet of sound overlaps no other: an encoder's priming begins early, and sound may outlast the pictures."""
        begin, end = packet.pts * packet.time_base, (packet.pts + (packet.duration or 0)) * packet.time_base
        if (self._sound_end is not None and begin < self._sound_end) or (until is not None and end > until):
            return False
        self._sound_end = end
        return True

    def _put(self, packet: Any) -> None:
        kind = packet.stream.type
        if kind in self._last_dts and packet.dts <= self._last_dts[kind]:
            raise _NotCopyable("the packets would be out of decoding order")
        self._last_dts[kind] = packet.dts
        packet.stream = self._streams[kind]
        self._out.mux(packet)


class _Writer:
    """An open file that frames of any video are re-encoded into, in the size and frame rate of the stream `like`."""

    def __init__(self, out: Any, like: Any, *, with_sound: bool) -> None:
        self._out = out
        self.rate = Fraction(like.average_rate or like.guessed_rate or 24)
        # H.264 in yuv420p has no odd sides.
        self.width, self.height = like.codec_context.width // 2 * 2, like.codec_context.height // 2 * 2
        self._video = out.add_stream("libx264", rate=self.rate, options={"crf": "17", "preset": "medium"})
        self._video.width, self._video.height, self._video.pix_fmt = self.width, self.height, "yuv420p"
        self._audio = out.add_stream("aac", rate=_AUDIO_RATE, layout="stereo") if with_sound else None
        self._frames = 0
        self._samples = 0

    def write_picture(self, frame: Any) -> None:
        frame.pts, frame.time_base = self._frames, 1 / self.rate
        self._frames += 1
        self._out.mux(self._video.encode(frame))

    def write_sound(self, frame: Any) -> None:
        if self._audio is None:
            return
        frame.pts, frame.time_base = self._samples, Fraction(1, _AUDIO_RATE)
        self._samples += frame.samples
        self._out.mux(self._audio.encode(frame))

    @property
    def samples_missing(self) -> int:
        """How many samples the sound lacks to be as long as the pictures."""
        return round(self._frames * _AUDIO_RATE / self.rate) - self._samples

    def close(self) -> None:
        for stream in (self._video, self._audio):
            if stream is not None:
                self._out.mux(stream.encode(None))


def _reencode(files: Sequence[Path], target: Path, *, with_sound: bool) -> None:
    import av

    with cast("Any", av.open(str(target), "w", format="mp4", options={"movflags": "faststart"})) as out:
        writer: _Writer | None = None
        for position, file in enumerate(files):
            with _opened(position, file) as container:
                writer = writer or _Writer(out, container.streams.video[0], with_sound=with_sound)
                for frame in _read(position, _pictures(container, writer)):
                    writer.write_picture(frame)
            if with_sound:
                with _opened(position, file) as container:
                    _write_sound(position, container, writer)
        if writer is not None:
            writer.close()


def _pictures(container: Any, writer: _Writer) -> Iterator[Any]:
    """The pictures of a video, fitted into the size and frame rate of the file."""
    from av.error import BlockingIOError as NothingYet
    from av.error import EOFError as AllDone
    from av.filter import Graph

    stream = container.streams.video[0]
    graph = cast("Any", Graph())
    size = f"{writer.width}:{writer.height}"
    filters = [
        graph.add_buffer(template=stream),
        graph.add("scale", f"{size}:force_original_aspect_ratio=decrease"),
        graph.add("pad", f"{size}:(ow-iw)/2:(oh-ih)/2"),
        graph.add("setsar", "1"),
        graph.add("fps", f"{writer.rate.numerator}/{writer.rate.denominator}"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    for one, other in pairwise(filters):
        one.link_to(other)
    graph.configure()
    for frame in chain(container.decode(stream), (None,)):
        graph.push(frame)
        while True:
            try:
                yield graph.pull()
            except (NothingYet, AllDone):
                break


def _write_sound(position: int, container: Any, writer: _Writer) -> None:
    """The sound of a video, cut or filled with silence to the length of its pictures."""
    import av

    fifo = cast("Any", av.AudioFifo())
    if container.streams.audio:
        resampler = cast("Any", av.AudioResampler(format="fltp", layout="stereo", rate=_AUDIO_RATE))
        for frame in chain(_read(position, container.decode(container.streams.audio[0])), (None,)):
            for resampled in resampler.resample(frame):
                resampled.pts = None
                fifo.write(resampled)
            while fifo.samples >= _AUDIO_SAMPLES and writer.samples_missing >= _AUDIO_SAMPLES:
                writer.write_sound(fifo.read(_AUDIO_SAMPLES))
            if fifo.samples >= writer.samples_missing:
                # The rest is cut, so it need not be decoded.
                break
    while (missing := writer.samples_missing) > 0:
        samples = min(missing, _AUDIO_SAMPLES)
        frame = fifo.read(samples, partial=True) if fifo.samples else None
        writer.write_sound(frame if frame is not None else _silence(samples))


def _silence(samples: int) -> Any:
    import av

    frame = cast("Any", av.AudioFrame(format="fltp", layout="stereo", samples=samples))
    frame.sample_rate = _AUDIO_RATE
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame
