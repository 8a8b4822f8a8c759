"""Thumbnails: small, true to the picture, and never the dark before a video begins."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image
from tests.engine.samples import AVIF, DRAWING, READS_AVIF, movie, picture, sound, turned

from prefect_happyhorse.artifacts.gallery import _shrunk
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.media import thumbnail as thumbnail_module
from prefect_happyhorse.engine.media.probe import MediaNotReadable, probe
from prefect_happyhorse.engine.media.thumbnail import probe_and_thumbnail, smaller, thumbnail


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "medium"
    path.write_bytes(content)
    return path


def opened(content: bytes | None) -> Image.Image:
    assert content is not None
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG"
    return image


def middle(image: Image.Image) -> tuple[int, ...]:
    pixel: Any = image.convert("RGB").getpixel((image.width // 2, image.height * 9 // 10))
    return pixel


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "bmp", "gif"])
def test_pictures(form: str, tmp_path: Path) -> None:
    """A large picture becomes a small one of the same shape and colours."""
    image = opened(thumbnail(put(tmp_path, picture(form, 1600, 800)), "image"))
    assert image.size == (480, 240)
    assert middle(image) == pytest.approx((255, 165, 0), abs=12)


@pytest.mark.skipif(not READS_AVIF, reason="This Pillow does not read it.")
def test_avif(tmp_path: Path) -> None:
    """The same for AVIF."""
    image = opened(thumbnail(put(tmp_path, AVIF), "image"))
    assert (image.size, middle(image)) == ((64, 48), pytest.approx((255, 165, 0), abs=12))


def test_drawings(tmp_path: Path) -> None:
    """There is no reader of drawings here."""
    with pytest.raises(MediaNotReadable, match="no thumbnail can be made of it"):
        thumbnail(put(tmp_path, DRAWING), "image")


def test_small_pictures(tmp_path: Path) -> None:
    """A small picture is not made larger."""
    assert opened(thumbnail(put(tmp_path, picture("png", 64, 32)), "image")).size == (64, 32)


def test_see_through(tmp_path: Path) -> None:
    """What is see-through is shown on white, not on black."""
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(buffer, "PNG")
    assert middle(opened(thumbnail(put(tmp_path, buffer.getvalue()), "image"))) == pytest.approx((255, 255, 255), abs=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_see_through_in_every_mode(mode: str, tmp_path: Path) -> None:
    """By a layer, by a palette's entry or by one colour."""
    buffer = io.BytesIO()
    image = Image.new(mode, (900, 600), 0) if mode in {"P", "RGB"} else Image.new("RGBA", (900, 600), (9, 9, 9, 0)).convert(mode)
    image.save(buffer, "PNG", **({"transparency": {"P": 0, "RGB": (0, 0, 0)}[mode]} if mode in {"P", "RGB"} else {}))
    assert middle(opened(thumbnail(put(tmp_path, buffer.getvalue()), "image"))) == pytest.approx((255, 255, 255), abs=3)


@pytest.mark.parametrize(
    ("form", "mode", "side"), [("png", "RGBA", 5000), ("webp", "RGB", 5000), ("gif", "P", 5000), ("jpeg", "L", 6400), ("png", "1", 7000)]
)
def test_too_large(form: str, mode: str, side: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be decoded in little memory has no thumbnail, and the log says so; nothing of it is decoded."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "medium"
    Image.new(mode, (side, side)).save(path, form)
    assert thumbnail(path, "image") is None
    assert f"No thumbnail of {side} x {side} pixels is made" in caplog.text


def test_large_jpeg(tmp_path: Path) -> None:
    """A JPEG is decoded at a fraction of its size, so it may be larger than others."""
    path = tmp_path / "medium"
    Image.new("RGB", (6000, 6000), "orange").save(path, "JPEG")
    assert opened(thumbnail(path, "image")).size == (480, 480)


_MEMORY = """
import re, sys
from pathlib import Path
from PIL import Image
from prefect_happyhorse.engine.media.thumbnail import thumbnail

def most_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = most_kb()
thumbnail(Path(sys.argv[1]), "image")
print((most_kb() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Others count it elsewhere.")
@pytest.mark.parametrize(
    ("form", "mode", "side", "most_mb"), [("png", "RGBA", 5000, 30), ("png", "RGBA", 4096, 180), ("jpeg", "RGB", 6000, 60)]
)
def test_memory(form: str, mode: str, side: int, most_mb: int, tmp_path: Path) -> None:
    """A small file may stand for a huge picture."""
    path = tmp_path / "medium"
    Image.new(mode, (side, side)).save(path, form)
    ended = subprocess.run([sys.executable, "-c", _MEMORY, str(path)], capture_output=True, text=True, check=True)
    assert int(ended.stdout) <= most_mb


def test_turned(tmp_path: Path) -> None:
    """A picture that is to be shown on its side is shown so."""
    exif = Image.Exif()
    exif[274] = 6
    assert opened(thumbnail(put(tmp_path, picture("jpeg", 640, 480, exif=exif)), "image")).size == (360, 480)


@pytest.mark.parametrize("form", ["mp4", "mov", "webm"])
def test_videos(form: str, tmp_path: Path) -> None:
    """A video is shown by a frame from a third of its course, not by the dark that it begins with."""
    image = opened(thumbnail(put(tmp_path, movie(form, frames=24, dark_frames=4)), "video"))
    assert image.size == (320, 240)
    # Of 24 frames the ninth begins the second third; the first that is not dark would have 120 in the middle place.
    assert middle(image) == pytest.approx((200, 200, 0), abs=15)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (1280, 720, (480, 270)),
        (720, 1280, (270, 480)),
        (480, 480, (480, 480)),
        (482, 480, (480, 478)),
        (1920, 16, (480, 4)),
        (64, 32, (64, 32)),
    ],
)
def test_sizes_of_videos(width: int, height: int, size: tuple[int, int], tmp_path: Path) -> None:
    """A large video becomes a small picture of the same shape, and a small one is not made larger."""
    image = opened(thumbnail(put(tmp_path, movie(width=width, height=height)), "video"))
    assert image.size == size
    assert middle(image)[0] > 150


@pytest.mark.parametrize("most", [1, 100, 480, 2000])
def test_sizes_asked_for(most: int, tmp_path: Path) -> None:
    """No side is longer than what was asked for, of a picture as of a video, and none is nothing."""
    media: list[tuple[bytes, AssetKind]] = [(picture("jpeg", 1000, 500), "image"), (movie(width=640, height=320), "video")]
    for content, kind in media:
        image = opened(thumbnail(put(tmp_path, content), kind, size=most))
        longest = min(most, 1000 if kind == "image" else 640)
        assert image.size == (longest, max(1, longest // 2))


@pytest.mark.parametrize(("frames", "shown"), [(1, 0), (2, 1), (3, 1), (48, 16), (300, 100)])
def test_the_frame_that_is_shown(frames: int, shown: int, tmp_path: Path) -> None:
    """It is the one a third into the video, or one soon after it on which others depend, however far off its key frames are."""
    green = middle(opened(thumbnail(put(tmp_path, movie(frames=frames)), "video")))[1]
    colours = [(40 + 20 * number) % 256 for number in range(shown, min(frames, shown + 4))]
    assert min(abs(green - colour) for colour in colours) <= 15


def test_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thumbnail can be made smaller and no longer in bytes; one that is small enough stays as it is, and without Pillow any does."""
    whole = thumbnail(put(tmp_path, picture("png", 1600, 800)), "image") or b""
    small = smaller(whole, 160)
    assert opened(small).size == (160, 80)
    assert len(small) <= len(whole)
    assert middle(opened(small)) == pytest.approx((255, 165, 0), abs=12)
    assert smaller(whole, 480) == whole
    assert [opened(shown).size for shown in _shrunk([whole]) if shown] == [(192, 96)]
    with pytest.raises(MediaNotReadable):
        smaller(b"notes about a horse", 160)
    monkeypatch.setattr(thumbnail_module, "can_measure", lambda _: False)  # pyright: ignore[reportUnknownLambdaType]
    assert _shrunk([whole, None]) == [whole, None]


def test_fine_lines_made_smaller(tmp_path: Path) -> None:
    """Lines that are too fine to be shown become greys, where a picture of which pixels are left out stays black and white."""
    lines = Image.new("L", (480, 480))
    lines.putdata([255 * (x // 2 % 2) for _ in range(480) for x in range(480)])
    buffer = io.BytesIO()
    lines.convert("RGB").save(buffer, "JPEG", quality=95)
    low, high = opened(smaller(buffer.getvalue(), 192)).convert("L").getextrema()
    assert 40 < low <= high < 215


def test_turned_videos(tmp_path: Path) -> None:
    """A video that is to be shown on its side is shown so: what was above is on the right."""
    image = opened(thumbnail(put(tmp_path, turned(movie())), "video"))
    assert image.size == (240, 320)
    pixel: Any = image.getpixel((235, 160))
    assert pixel == pytest.approx((0, 255, 0), abs=40)


def test_dark_beginning(tmp_path: Path) -> None:
    """When a third of the way is still dark, a later frame is taken; of a video that is dark all through, some frame is."""
    assert middle(opened(thumbnail(put(tmp_path, movie(frames=24, fps=24, dark_frames=11)), "video")))[0] > 150
    assert middle(opened(thumbnail(put(tmp_path, movie(frames=6, dark_frames=6)), "video"))) == pytest.approx((0, 0, 0), abs=20)


def test_length(tmp_path: Path) -> None:
    """The thumbnail keeps to the length that is given, by quality first and then by size."""
    noise = io.BytesIO()
    Image.effect_noise((900, 900), 200).save(noise, "PNG")
    path = put(tmp_path, noise.getvalue())
    lengths = [len(thumbnail(path, "image", size=900, max_bytes=most) or b"") for most in (400_000, 60_000, 5_000)]
    assert [length <= most for length, most in zip(lengths, (400_000, 60_000, 5_000), strict=True)] == [True] * 3
    assert lengths == sorted(lengths, reverse=True)
    assert opened(thumbnail(path, "image", max_bytes=1)).size == (1, 1)


def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound has no thumbnail, and without the extra nothing has."""
    assert thumbnail(put(tmp_path, sound()), "audio") is None
    monkeypatch.setattr(thumbnail_module, "can_measure", lambda _: False)  # pyright: ignore[reportUnknownLambdaType]
    assert thumbnail(put(tmp_path, picture()), "image") is None


@pytest.mark.parametrize("content", [movie(), turned(movie()), movie(frames=6, dark_frames=6), picture(), sound(), DRAWING])
def test_probe_and_thumbnail(content: bytes, tmp_path: Path) -> None:
    """Both at once are as each by itself; what gives no thumbnail is looked into all the same."""
    info, made = probe_and_thumbnail(path := put(tmp_path, content))
    assert (info, made) == (probe(path), None if content == DRAWING else thumbnail(path, info.kind))


def test_no_frame_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of which no frame can be shown is none the worse; without memory it is not known what it is."""
    path = put(tmp_path, movie())
    for error in (ValueError("broken"), MemoryError()):
        monkeypatch.setattr(thumbnail_module, "_frame_of", Mock(side_effect=error))
        with pytest.raises(MemoryError) if isinstance(error, MemoryError) else nullcontext():
            assert probe_and_thumbnail(path) == (probe(path), None)
    monkeypatch.setattr(thumbnail_module, "_frame_of", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
    assert probe_and_thumbnail(path)[1] is None


@pytest.mark.parametrize("kind", ["image", "video"])
def test_unreadable(kind: Any, tmp_path: Path) -> None:
    """What does not open gives no thumbnail, and says so."""
    with pytest.raises(MediaNotReadable, match="no thumbnail can be made of it"):
        thumbnail(put(tmp_path, b"notes about a horse"), kind)
    with pytest.raises(FileNotFoundError):
        thumbnail(tmp_path / "nothing", kind)
