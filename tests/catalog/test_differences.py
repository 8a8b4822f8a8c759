"""What came is compared with what was asked for: what is said, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_happyhorse.catalog import find_differences, find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import GenerationRequest, TextToImage, TextToVideo, VideoEdit, VideoExtension


def came(kind: str = "video", **facts: Any) -> MediaAsset:
    return MediaAsset(kind=kind, uri="memory://a", media_type="video/mp4", bytes=3, sha256="00", **facts)  # type: ignore[arg-type]


def video(**facts: Any) -> TextToVideo:
    return TextToVideo(model="wan2.7-t2v", prompt="A horse", **facts)


def picture(**facts: Any) -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt="A horse", **facts)


@pytest.mark.parametrize("got", [4.91, 5.0, 5.06])
def test_a_length_within_rounding(got: float) -> None:
    """A container's rounding is no difference."""
    assert find_differences(came(duration_s=got), video(duration=5)) == ()


def test_another_length() -> None:
    """More than rounding is one, with what was asked for and what came."""
    assert find_differences(came(duration_s=3.2), video(duration=5)) == ("duration: 5 s were asked for (got 3.20 s)",)
    assert find_differences(came(duration_s=5.2), video(duration=5)) == ("duration: 5 s were asked for (got 5.20 s)",)


@pytest.mark.parametrize(
    "request_",
    [
        video(),
        VideoEdit(model="wan2.7-videoedit", prompt="Snow", video="a.mp4", duration=5),
        VideoExtension(model="wan2.7-i2v", prompt="On", clip="a.mp4", duration=5),
    ],
)
def test_a_length_that_nobody_asked_for(request_: GenerationRequest) -> None:
    """Nothing is compared with what the request leaves open, nor where it is not said how much of a clip counts."""
    assert find_differences(came(duration_s=3.2, width=8, height=8, fps=3.0, has_sound=True), request_) == ()


def test_what_is_not_known_is_not_compared() -> None:
    """Without the extra nothing is measured, so nothing is told."""
    asked = video(duration=5, resolution="720p", aspect_ratio="16:9", audio="a.mp3", options={"fps": 24})
    assert find_differences(came(), asked) == ()


@pytest.mark.parametrize(
    ("asked", "sides"),
    [
        ("720p", (1280, 720)),
        ("720p", (720, 1280)),
        ("720P", (1280, 704)),
        ("720p", (960, 960)),
        ("720p", (1104, 832)),
        ("720p", (1470, 630)),
        ("1080p", (1920, 1088)),
        ("1080p", (1440, 1440)),
        ("480p", (832, 480)),
        ("720", (1280, 720)),
        ("1k", (1024, 1024)),
        ("1K", (1376, 768)),
        ("1k", (1024, 1536)),
        ("2k", (2048, 1152)),
        ("4k", (3840, 2160)),
        ("hd", (8, 8)),
    ],
)
def test_tiers(asked: str, sides: tuple[int, int]) -> None:
    """A tier is its short side, or as many pixels in another shape; a word that is no tier is not compared."""
    assert find_differences(came(width=sides[0], height=sides[1]), video(resolution=asked)) == ()


@pytest.mark.parametrize(
    ("asked", "sides"),
    [("720p", (854, 480)), ("720p", (1920, 1080)), ("1080p", (1280, 720)), ("480p", (1280, 720)), ("2k", (1024, 1024)), ("1k", (640, 640))],
)
def test_other_tiers(asked: str, sides: tuple[int, int]) -> None:
    """The next tier is another one."""
    told = f"resolution: {asked} was asked for (got {sides[0]} x {sides[1]} px)"
    assert find_differences(came(width=sides[0], height=sides[1]), video(resolution=asked)) == (told,)


@pytest.mark.parametrize(
    ("asked", "sides"), [("16:9", (832, 480)), ("9:16", (720, 1280)), ("1:1", (960, 960)), ("auto", (7, 9)), ("1:0", (7, 9))]
)
def test_ratios(asked: str, sides: tuple[int, int]) -> None:
    """A ratio within what coders round is as asked."""
    assert find_differences(came(width=sides[0], height=sides[1]), video(aspect_ratio=asked)) == ()


def test_other_ratios() -> None:
    """A portrait is no landscape, and 3:4 is not 4:5."""
    assert find_differences(came(width=720, height=1280), video(aspect_ratio="16:9")) == (
        "aspect_ratio: 16:9 was asked for (got 720 x 1280 px)",
    )
    assert len(find_differences(came(width=1024, height=1280), video(aspect_ratio="3:4"))) == 1


def test_sizes() -> None:
    """A size is both of its sides; as a tier or a ratio it is compared as these."""
    for asked, sides in {"1536x1024": (1536, 1024), "1664*928": (1664, 928), "1:1": (512, 512), "2K": (2048, 2048)}.items():
        assert find_differences(came("image", width=sides[0], height=sides[1]), picture(size=asked)) == ()
    for asked in ("1024x1536", "1536x864", "16:9", "4K"):
        told = f"size: {asked} was asked for (got 1536 x 1024 px)"
        assert find_differences(came("image", width=1536, height=1024), picture(size=asked)) == (told,)


def test_what_the_route_alone_makes() -> None:
    """A model that is its resolution promises it, whether the request says so or not."""
    route = find_route("uniall", "text_to_video", "happy-horse-720p")
    request = TextToVideo(model="happy-horse-720p", prompt="It neighs")
    assert find_differences(came(width=1280, height=720), request, route) == ()
    told = "resolution: 720p is all that the route makes (got 640 x 360 px)"
    assert find_differences(came(width=640, height=360), request, route) == (told,)


@pytest.mark.parametrize(("asked", "count"), [({"fps": 24}, 0), ({"frame_rate": 12}, 1), ({"fps": "24"}, 0), ({"fps": True}, 0), ({}, 0)])
def test_frame_rates(asked: dict[str, Any], count: int) -> None:
    """An option that names a frame rate is compared, where it is a number."""
    assert len(find_differences(came(fps=23.976), video(options=asked))) == count


def test_sound() -> None:
    """Sound that was given or switched on has to be heard, and one that was switched off must not be."""
    for asked in (video(audio="a.mp3"), video(options={"generate_audio": True})):
        assert find_differences(came(has_sound=True), asked) == ()
        assert find_differences(came(has_sound=False), asked) == ("sound: it was asked for (got none)",)
    silent = video(options={"audio": False})
    assert find_differences(came(has_sound=False), silent) == ()
    assert find_differences(came(has_sound=True), silent) == ("sound: none was asked for (got some)",)
    assert find_differences(came(has_sound=True), video(options={"audio": "origin"})) == ()


def test_how_many_came() -> None:
    """Fewer pictures than were asked for are told, where it is known how many came."""
    assert find_differences(came("image"), picture(n=3), outputs=2) == ("n: 3 were asked for (got 2)",)
    assert find_differences(came("image"), picture(n=3), outputs=3) == find_differences(came("image"), picture(n=3)) == ()
