"""What is black, stands still or is silent, told from real videos; and those that only look so at a glance."""

from __future__ import annotations

import array
import io
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageDraw
from tests.engine.samples import movie

from prefect_happyhorse.engine.media import blank, thumbnail
from prefect_happyhorse.engine.media.probe import MediaInfo, probe
from prefect_happyhorse.engine.media.thumbnail import probe_and_thumbnail

WIDTH, HEIGHT, FPS = 256, 144, 12
BLACK = ("it is black: so are all frames that were looked at",)
STILL = ("it stands still: all frames that were looked at are the same",)
SILENT = ("its sound is silent",)


def film(
    draw: Callable[[int], Image.Image],
    *,
    frames: int = 60,
    loudness: Callable[[int], float] | None = None,
    codec: str = "libx264",
    **options: str,
) -> bytes:
    """A video of what is drawn for each frame, with a tone as loud as is said for each second, where it has a sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm" if codec == "libvpx" else "mp4") as out:
        video: Any = out.add_stream(codec, rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = None if loudness is None else out.add_stream("aac", rate=44_100, layout="stereo")
        for number in range(frames):
            frame = av.VideoFrame.from_image(draw(number))
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for number in range(0 if loudness is None else frames * 44_100 // FPS // 1024):
            assert loudness is not None
            loud = loudness(number * 1024 // 44_100)
            heard: Any = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
            heard.sample_rate, heard.pts = 44_100, number * 1024
            # The two sides against each other: mixed to one they would be silence.
            for side, plane in zip((1, -1), heard.planes, strict=True):
                plane.update(array.array("f", [side * loud * math.sin(sample / 8) for sample in range(1024)]).tobytes())
            out.mux(audio.encode(heard))
        if audio is not None:
            out.mux(audio.encode(None))
    return buffer.getvalue()


def black(_: int) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT))


def hill(shift: int = 0) -> Image.Image:
    picture = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
    ImageDraw.Draw(picture).ellipse((40 + shift, 40, 120 + shift, 120), fill="red")
    return picture


def told(tmp_path: Path, content: bytes) -> tuple[str, ...]:
    path = tmp_path / "video"
    path.write_bytes(content)
    return probe_and_thumbnail(path)[0].warnings


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_black(codec: str, tmp_path: Path) -> None:
    """All of it is black, in whatever coding."""
    assert told(tmp_path, film(black, codec=codec)) == BLACK


@pytest.mark.parametrize("options", [{}, {"g": "12"}, {"bf": "0"}])
def test_still(options: dict[str, str], tmp_path: Path) -> None:
    """A picture in place of a video, with few key frames or many."""
    assert told(tmp_path, film(lambda _: hill(), **options)) == STILL


def test_longer_than_is_looked_at(tmp_path: Path) -> None:
    """Of a long one key frames are looked at: one that stands still to its end is told, and one that moves only late is not."""
    assert told(tmp_path, film(lambda _: hill(), frames=900, g="60")) == STILL
    assert told(tmp_path, film(lambda number: hill(90 if number > 700 else 0), frames=900, g="60")) == ()
    # Without key frames what comes later is not known, and nothing is said of it.
    assert told(tmp_path, film(lambda _: hill(), frames=900, g="2000", sc_threshold="0", bf="0")) == ()


@pytest.mark.parametrize(
    "draw",
    [
        hill,
        lambda number: hill(60 if number > 40 else 0),
        lambda number: black(number) if number < 40 else hill(number),
        lambda number: hill(number) if number < 10 else black(number),
    ],
)
def test_neither(draw: Callable[[int], Image.Image], tmp_path: Path) -> None:
    """One that moves, moves late, fades in or fades out is as it should be."""
    assert told(tmp_path, film(draw)) == ()


def test_a_single_frame(tmp_path: Path) -> None:
    """A single frame is compared with none."""
    assert told(tmp_path, film(lambda _: hill(), frames=1)) == ()


def test_silent(tmp_path: Path) -> None:
    """Sound that is there and cannot be heard; a tone is heard though its two sides are against each other."""
    assert told(tmp_path, film(hill, loudness=lambda _: 0.0)) == SILENT
    assert told(tmp_path, film(hill, loudness=lambda _: 0.2)) == ()
    assert told(tmp_path, film(hill, loudness=lambda second: 0.2 if second == 4 else 0.0)) == ()
    # A minute, of which not every packet is looked at.
    assert told(tmp_path, film(hill, frames=720, loudness=lambda _: 0.0)) == SILENT
    assert told(tmp_path, film(hill, frames=720, loudness=lambda second: 0.2 if second > 50 else 0.0)) == ()


def test_all_at_once(tmp_path: Path) -> None:
    """Each of them is told."""
    assert told(tmp_path, film(black, loudness=lambda _: 0.0)) == BLACK + SILENT


def test_whether_there_is_sound(tmp_path: Path) -> None:
    """A video says whether it has a sound track."""
    path = tmp_path / "video"
    for loudness in (None, lambda _: 0.0):  # pyright: ignore[reportUnknownLambdaType]
        path.write_bytes(film(hill, frames=4, loudness=loudness))
        assert probe(path).has_sound is (loudness is not None)


def test_little_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a video is, so many frames are looked at; of one that moves only the first ones."""
    looked_at: list[float] = []
    lumas = blank._lumas

    def counted(*given: Any) -> Any:
        for time_s, luma in lumas(*given):
            looked_at.append(time_s)
            yield time_s, luma

    monkeypatch.setattr(blank, "_lumas", counted)
    assert told(tmp_path, film(lambda _: hill(), frames=900, g="60")) == STILL
    assert len(looked_at) <= 50
    looked_at.clear()
    assert told(tmp_path, film(lambda number: hill(3 * number), frames=900, g="60")) == ()
    assert len(looked_at) <= 3


def test_a_still_video_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame that is shown passes by while it is looked at, and is the one that is found without."""
    path = tmp_path / "video"
    path.write_bytes(film(lambda _: hill()))
    found = thumbnail.thumbnail(path, "video")
    monkeypatch.setattr(thumbnail, "_frames_from", lambda *_: iter(()))
    info, picture = probe_and_thumbnail(path)
    assert (info.warnings, picture) == (STILL, found)


def test_a_look_that_fails_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decoders raise here says nothing of a file that is whole."""

    def broken(*_: Any) -> tuple[str, ...]:
        raise RuntimeError("no such filter")

    monkeypatch.setattr(thumbnail, "blank_warnings", broken)
    path = tmp_path / "video"
    path.write_bytes(movie())
    info, picture = probe_and_thumbnail(path)
    assert (info.warnings, info.width, picture is None) == ((), 320, False)


def test_too_large_a_video_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take much memory is left alone."""
    monkeypatch.setattr(blank, "MOST_PIXELS", 1000)
    assert told(tmp_path, film(black)) == ()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyAV nothing is looked at, and nothing fails."""
    monkeypatch.setattr("prefect_happyhorse.engine.media.probe.can_measure", lambda _: False)  # pyright: ignore[reportUnknownLambdaType]
    content = film(black)
    path = tmp_path / "video"
    path.write_bytes(content)
    assert probe_and_thumbnail(path)[0] == MediaInfo("mp4", "video", len(content))
