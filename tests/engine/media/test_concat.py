"""Videos as providers make them: sound longer than pictures, clocks that do not begin at nought, codings that MP4 does not take."""

from __future__ import annotations

import io
import math
from array import array
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from prefect_happyhorse.engine.media.concat import concat_files

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
RATE = 44_100


def clip(
    colour: str,
    *,
    frames: int = 24,
    fps: int | Fraction = 24,
    start_s: float = 0,
    sound_s: float = 0,
    tone: bool = False,
    codec: str = "libx264",
) -> bytes:
    """A video of one colour with B-frames, and sound that is silent or a tone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4" if codec == "libx264" else "webm") as out:
        video: Any = out.add_stream(codec, rate=fps, options={"bf": "3"} if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio: Any = out.add_stream("aac", rate=RATE, layout="mono") if sound_s else None
        for number in range(frames):
            frame = av.VideoFrame.from_image(Image.new("RGB", (160, 120), COLOURS[colour]))
            frame.pts, frame.time_base = number + round(start_s * fps), 1 / Fraction(fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for number in range(round(sound_s * RATE / 1024)):
            heard = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            turns = (440 * (number * 1024 + sample) / RATE for sample in range(1024))
            wave = array("f", (0.5 * math.sin(2 * math.pi * turn) if tone else 0.0 for turn in turns)).tobytes()
            for plane in heard.planes:
                plane.update(wave.ljust(plane.buffer_size, b"\0"))
            heard.sample_rate, heard.pts = RATE, number * 1024 + round(start_s * RATE)
            out.mux(audio.encode(heard))
        if audio is not None:
            out.mux(audio.encode(None))
    return buffer.getvalue()


def film_of(folder: Path, *clips: bytes) -> tuple[Path, bool]:
    files = [folder / f"{number}.mp4" for number in range(len(clips))]
    for file, content in zip(files, clips, strict=True):
        file.write_bytes(content)
    film = folder / "film.mp4"
    return film, concat_files(files, film)


def seen(film: Path, fps: int | Fraction = 24) -> list[str]:
    """The nearest colour of every frame; each comes one frame after the one before, from nought on."""
    with av.open(str(film)) as container:
        frames = list(container.decode(video=0))
    times = [float(frame.time or 0) for frame in frames]
    assert times[0] == pytest.approx(0, abs=0.001)
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx(
        [float(1 / Fraction(fps))] * (len(times) - 1), abs=0.002
    )
    return [_nearest(frame.to_image().resize((1, 1)).getpixel((0, 0))) for frame in frames]


def _nearest(pixel: tuple[int, int, int]) -> str:
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)))


def loud(film: Path) -> tuple[float, float]:
    """From when to when the film is loud, in seconds; no sound lies over another."""
    times: list[float] = []
    end = float("-inf")
    with av.open(str(film)) as container:
        for frame in container.decode(audio=0):
            begin = float(frame.time or 0)
            assert begin >= end - 0.001
            end = begin + frame.samples / frame.sample_rate
            if max(map(abs, memoryview(bytes(frame.planes[0])).cast("f")[: frame.samples])) > 0.1:
                times += [begin, end]
    return min(times), max(times)


@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001)], ids=str)
@pytest.mark.parametrize("sound_s", [0.5, 0.97, 1.05, 1.5])
def test_sound_of_another_length_than_the_pictures_moves_no_picture(tmp_path: Path, sound_s: float, fps: int | Fraction) -> None:
    """Picture upon picture, and the sound of each video is heard with its own pictures; copied, but for where silence is wanted."""
    clips = [clip(colour, fps=fps, sound_s=sound_s, tone=colour == "green") for colour in COLOURS]
    film, anew = film_of(tmp_path, *clips)
    assert anew is (sound_s == 0.5)
    assert seen(film, fps) == [colour for colour in COLOURS for _ in range(24)]
    length = float(24 / Fraction(fps))
    assert loud(film) == pytest.approx((length, length + min(sound_s, length)), abs=0.06)


def test_a_clock_that_does_not_begin_at_nought_makes_no_hole(tmp_path: Path) -> None:
    """A video that says that it begins after half a second begins where the one before ends."""
    film, anew = film_of(tmp_path, *(clip(colour, start_s=0.5, sound_s=1) for colour in COLOURS))
    assert anew is False
    assert seen(film) == [colour for colour in COLOURS for _ in range(24)]


@pytest.mark.parametrize("frames", [(1, 24), (24, 1, 24)], ids=str)
def test_packets_that_cannot_follow_each_other_are_coded_anew(tmp_path: Path, frames: tuple[int, ...]) -> None:
    """A video of one picture lasts shorter than its packets are decoded ahead."""
    chosen = list(zip(COLOURS, frames, strict=False))
    film, anew = film_of(tmp_path, *(clip(colour, frames=count) for colour, count in chosen))
    assert anew is True
    assert seen(film) == [colour for colour, count in chosen for _ in range(count)]


def test_a_coding_that_mp4_does_not_take_is_coded_anew(tmp_path: Path) -> None:
    """Though it is the same in all videos."""
    film, anew = film_of(tmp_path, *(clip(colour, codec="libvpx") for colour in COLOURS))
    assert anew is True
    assert seen(film) == [colour for colour in COLOURS for _ in range(24)]


@pytest.mark.parametrize("other", [24, 12], ids=["copied", "anew"])
def test_a_film_that_cannot_be_written_is_not_a_videos_fault(tmp_path: Path, other: int) -> None:
    """A full disk is told as such, and may be tried again."""
    files = [tmp_path / "0.mp4", tmp_path / "1.mp4"]
    files[0].write_bytes(clip("red"))
    files[1].write_bytes(clip("green", fps=other))
    with pytest.raises(OSError, match="No space left on device"):
        concat_files(files, Path("/dev/full"))
