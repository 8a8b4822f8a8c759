"""Videos one after the other: each at its place, of its length, in one file that plays through."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime, timezone
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs.results import stored_thumbnail
from prefect_happyhorse.engine.media import film as film_module
from prefect_happyhorse.engine.media.concat import ConcatFailed, concat_files
from prefect_happyhorse.engine.media.film import concat
from prefect_happyhorse.engine.storage.store import Store

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


def clip(
    colour: str, *, seconds: float = 1, fps: int = 12, size: tuple[int, int] = (160, 120), sound: bool = False, codec: str = "libx264"
) -> bytes:
    """A video of one colour, with B-frames where its coding has them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4" if codec == "libx264" else "webm") as out:
        video: Any = out.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio: Any = out.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for number in range(round(seconds * fps)):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, COLOURS[colour]))
            frame.pts, frame.time_base = number, Fraction(1, fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            for number in range(round(seconds * 44_100 / 1024)):
                heard = av.AudioFrame(format="fltp", layout="mono", samples=1024)
                heard.sample_rate, heard.pts = 44_100, number * 1024
                for plane in heard.planes:
                    plane.update(bytes(plane.buffer_size))
                out.mux(audio.encode(heard))
            out.mux(audio.encode(None))
    return buffer.getvalue()


def written(folder: Path, *clips: bytes) -> list[Path]:
    files = [folder / f"{number}.mp4" for number in range(len(clips))]
    for file, content in zip(files, clips, strict=True):
        file.write_bytes(content)
    return files


def seen(file: Path) -> list[str]:
    """The nearest colour of every frame, which come in their order and without a gap."""
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    times = [float(frame.time or 0) for frame in frames]
    assert times == sorted(times)
    assert max((later - earlier for earlier, later in pairwise(times)), default=0) < 0.2
    return [_nearest(frame.to_image().resize((1, 1)).getpixel((0, 0))) for frame in frames]


def _nearest(pixel: tuple[int, int, int]) -> str:
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)))


def lengths(file: Path) -> dict[str, float]:
    with av.open(str(file)) as container:
        return {stream.type: float((stream.duration or 0) * (stream.time_base or 0)) for stream in container.streams}


@pytest.mark.parametrize("sound", [False, True])
def test_equal_codings_are_copied(tmp_path: Path, sound: bool) -> None:
    """Not a packet is changed: three seconds in their order, of the very frames that went in."""
    files = written(tmp_path, *(clip(colour, sound=sound) for colour in COLOURS))
    film = tmp_path / "film.mp4"
    assert concat_files(files, film) is False
    assert seen(film) == ["red"] * 12 + ["green"] * 12 + ["blue"] * 12
    assert lengths(film)["video"] == pytest.approx(3.0, abs=0.1)
    assert set(lengths(film)) == ({"video", "audio"} if sound else {"video"})


OTHERS = {
    "size": {"size": (200, 100)},
    "rate": {"fps": 24},
    "coding": {"codec": "libvpx"},
    "sound": {"sound": True},
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_differs_is_fitted_into_the_first(tmp_path: Path, other: str) -> None:
    """Another size, frame rate, coding or sound: coded anew like the first, each part as long as before."""
    files = written(tmp_path, clip("red"), clip("green", **OTHERS[other]), clip("blue"))
    film = tmp_path / "film.mp4"
    assert concat_files(files, film) is True
    assert seen(film) == ["red"] * 12 + ["green"] * 12 + ["blue"] * 12
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("h264", 160, 120, 12)
    found = lengths(film)
    assert found["video"] == pytest.approx(3.0, abs=0.1)
    if other == "sound":
        assert found["audio"] == pytest.approx(3.0, abs=0.1)


def test_one_video_is_a_film_too(tmp_path: Path) -> None:
    """It is copied."""
    (file,) = written(tmp_path, clip("red"))
    assert concat_files([file], tmp_path / "film.mp4") is False
    assert seen(tmp_path / "film.mp4") == ["red"] * 12


def test_a_video_that_does_not_open_is_named(tmp_path: Path) -> None:
    """By its place, before anything is written."""
    files = written(tmp_path, clip("red"), b"no video at all")
    with pytest.raises(ConcatFailed, match="video 2 cannot be concatenated"):
        concat_files(files, tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()
    with pytest.raises(ValueError, match="at least one video"):
        concat_files([], tmp_path / "film.mp4")


WHEN = datetime(2026, 11, 20, tzinfo=timezone.utc)


def asset(store: Store, name: str, content: bytes) -> MediaAsset:
    return MediaAsset(
        kind="video",
        uri=store.uri(name),
        media_type="video/mp4",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        job=Job(gateway="ttapi", account="a", capability="text_to_video", model="m", task_id=name, digest="d", submitted_at=WHEN),
    )


@pytest.mark.parametrize("kind", ["local", "memory"])
async def test_a_film_is_kept_beside_its_parts_and_made_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it was made of written down beside it, and a picture; the same parts are not joined a second time."""
    store = Store(str(tmp_path / "outputs")) if kind == "local" else Store(f"memory://{tmp_path.name}", scratch=str(tmp_path / "scratch"))
    contents = {f"{colour}.mp4": clip(colour) for colour in COLOURS}
    for name, content in contents.items():
        await store.write(name, content)
    parts = [asset(store, name, content) for name, content in contents.items()]
    film = await concat(parts, store, title="The ride")
    assert film.uri.startswith(store.uri("films/The-ride"))
    assert (film.kind, film.width, film.height) == ("video", 160, 120)
    assert film.duration_s == pytest.approx(3.0, abs=0.1)
    content = await store.read(store.path_of(film.uri) or "")
    assert (len(content), hashlib.sha256(content).hexdigest()) == (film.bytes, film.sha256)
    assert await stored_thumbnail(film, store) is not None

    def never(*args: object) -> bool:
        raise AssertionError("it is joined a second time")

    monkeypatch.setattr(film_module, "concat_files", never)
    assert await concat(parts, store, title="The ride") == film
    with pytest.raises(AssertionError):
        await concat(parts[::-1], store, title="The ride")


async def test_a_film_that_was_kept_first_stands(tmp_path: Path) -> None:
    """Another machine's coder gives other bytes for the same videos; a film that nothing is written down of is found and written down."""
    store = Store(str(tmp_path / "outputs"))
    contents = {"red.mp4": clip("red"), "green.mp4": clip("green", fps=24)}
    for name, content in contents.items():
        await store.write(name, content)
    parts = [asset(store, name, content) for name, content in contents.items()]
    path = store.path_of((await concat(parts, store, title="film")).uri) or ""
    await store.delete(f"{path}.json")
    theirs = clip("blue", seconds=2)
    await store.write(path, theirs)
    film = await concat(parts, store, title="film")
    assert (await store.read(path), film.sha256) == (theirs, hashlib.sha256(theirs).hexdigest())
    assert film.duration_s == pytest.approx(2.0, abs=0.1)
    assert await stored_thumbnail(film, store) is not None
    assert await concat(parts, store, title="film") == film


@pytest.mark.parametrize("kind", ["local", "memory"])
async def test_a_video_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    """By its place and its address; no film is kept."""
    store = Store(str(tmp_path / "outputs")) if kind == "local" else Store(f"memory://{tmp_path.name}", scratch=str(tmp_path / "scratch"))
    red = clip("red")
    await store.write("red.mp4", red)
    parts = [asset(store, "red.mp4", red), asset(store, "gone.mp4", b"gone")]
    with pytest.raises(ConcatFailed, match=r"video 2 cannot be concatenated: .*gone\.mp4: there is no such file") as caught:
        await concat(parts, store, title="film")
    assert caught.value.position == 1
    assert await store.list("films") == []


def test_what_is_missing_is_told_before_anything_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyAV no film can be joined."""
    monkeypatch.setattr(film_module, "can_measure", lambda kind: kind == "image")
    with pytest.raises(ImportError, match=r"prefect-happyhorse\[media\]"):
        film_module.check_can_concat()
