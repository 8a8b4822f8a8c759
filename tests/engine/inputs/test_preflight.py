"""What is found out about a request's media before anything is sent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.engine.samples import movie, picture, sound

from prefect_happyhorse.catalog import MediaLimit, Route, find_route, routes
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import (
    GenerationRequest,
    ImageAudioToVideo,
    ImageEdit,
    ImageToVideo,
    ReferenceToVideo,
    TextToVideo,
    VideoEdit,
    VideoExtension,
)
from prefect_happyhorse.engine.inputs.preflight import Inspection, inspect_media, limit_of
from prefect_happyhorse.engine.media import probe as probes
from prefect_happyhorse.engine.storage.store import Store

ANY = find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v")
GOOD = picture("png", 640, 480)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def limited(**limits: Any) -> Route:
    """A route with a single limit, whatever its role."""
    usual: dict[str, Any] = {"role": "image", "formats": ("jpeg", "png", "webp"), "max_bytes": 10_000_000}
    return ANY.model_copy(update={"media": (MediaLimit(**(usual | limits)),)})


def picture_request(*references: Any) -> GenerationRequest:
    return ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=references)


def video_request(video: Any) -> GenerationRequest:
    return VideoEdit(model="m", prompt="p", video=video)


async def problem_of(request: GenerationRequest, route: Route) -> str:
    """The only problem of a request's only medium, without the medium's name."""
    inspection = await inspect_media(request, route)
    assert (len(inspection.problems), dict(inspection.fingerprints)) == (1, {})
    return inspection.problems[0].split(": ", 1)[1]


async def test_good_ones(tmp_path: Path) -> None:
    """Media whose bytes are here are known by their content, wherever they lie and whatever they are called."""
    (tmp_path / "horse.jpg").write_bytes(GOOD)
    store = Store(f"memory://{os.urandom(6).hex()}")
    await store.write("horse.png", GOOD)
    asset = MediaAsset(
        kind="image", uri="s3://gone/horse.png", media_type="image/png", bytes=len(GOOD), sha256=sha256(GOOD), width=640, height=480
    )
    path = str(tmp_path / "horse.jpg")
    inline = "data:image/png;base64," + base64.b64encode(GOOD).decode()
    inspection = await inspect_media(picture_request(path, f"file://{path}", store.uri("horse.png"), inline, asset), ANY, store)
    assert inspection == Inspection(fingerprints={("references", position): f"sha256:{sha256(GOOD)}" for position in range(5)})


async def test_web_addresses_are_not_fetched() -> None:
    """A medium on the web is known by its address without a signature; nothing is fetched, so nothing is found wrong with it."""
    request = picture_request("http://127.0.0.1:9/a.png?X-Amz-Signature=1", "https://example.com/b.exe")
    inspection = await inspect_media(request, ANY)
    assert inspection.fingerprints == {
        ("references", 0): "url:http://127.0.0.1:9/a.png",
        ("references", 1): "url:https://example.com/b.exe",
    }
    assert (inspection.problems, inspection.unchecked) == ((), ())


async def test_no_media() -> None:
    """A request without media has nothing to look at."""
    assert await inspect_media(TextToVideo(model="m", prompt="p"), ANY) == Inspection()


async def test_a_text_named_png(tmp_path: Path) -> None:
    """A text file named .png is refused, and the sentence names field, value and the rule."""
    notes = tmp_path / "notes.png"
    notes.write_text("notes about a horse")
    route = find_route("happyhorse", "image_edit", "gpt-image-2")
    inspection = await inspect_media(ImageEdit(model="gpt-image-2", prompt="p", image=notes), route)
    assert inspection.problems == (f"image='{notes}': it must be a picture in {' or '.join(route.media[0].formats)} (got something else)",)


async def test_every_problem_at_once(tmp_path: Path) -> None:
    """The problems of all media are told together, in the order of the media; the others keep their fingerprints."""
    (tmp_path / "good.png").write_bytes(GOOD)
    (tmp_path / "small.png").write_bytes(picture("png", 300, 900))
    missing = str(tmp_path / "missing.png")
    request = picture_request(missing, tmp_path / "good.png", tmp_path / "small.png", tmp_path)
    inspection = await inspect_media(request, ANY)
    assert inspection.problems == (
        f"references[0]='{missing}': there is no such file; looked at {missing}",
        f"references[2]='{tmp_path}/small.png': it must have at least 400 px on the shorter side (got 300 x 900 px)",
        f"references[3]='{tmp_path}': it is a folder",
    )
    assert inspection.fingerprints == {("references", 1): f"sha256:{sha256(GOOD)}"}


@pytest.mark.parametrize(
    ("content", "limits", "problem"),
    [
        (b"", {}, "it must be a picture in jpeg or png or webp (got an empty file)"),
        (picture("gif"), {}, "it must be a picture in jpeg or png or webp (got gif)"),
        (movie(), {}, "it must be a picture in jpeg or png or webp (got a video in mp4)"),
        (sound(), {}, "it must be a picture in jpeg or png or webp (got a sound in mp3)"),
        (GOOD[:-20], {}, None),
        (GOOD, {"max_bytes": 100}, f"it must have at most 100 bytes (got {len(GOOD):,})"),
        (GOOD, {"min_side_px": 500}, "it must have at least 500 px on each side (got 640 x 480 px)"),
        (GOOD, {"min_short_side_px": 481}, "it must have at least 481 px on the shorter side (got 640 x 480 px)"),
        (GOOD, {"max_long_side_px": 639}, "it must have at most 639 px on the longer side (got 640 x 480 px)"),
        (GOOD, {"aspect": (0.4, 1.2)}, "its width must be between 0.4 and 1.2 times its height (got 1.33: 640 x 480 px)"),
    ],
)
async def test_pictures(content: bytes, limits: dict[str, Any], problem: str | None, tmp_path: Path) -> None:
    """Each limit on a picture is checked against the bytes."""
    (tmp_path / "x").write_bytes(content)
    found = await problem_of(picture_request(tmp_path / "x"), limited(**limits))
    assert found == (problem or found)
    assert problem or "it does not open as a picture" in found


@pytest.mark.parametrize(
    "limits",
    [
        {"max_bytes": len(GOOD)},
        {"min_side_px": 480},
        {"min_short_side_px": 480},
        {"max_long_side_px": 640},
        {"aspect": (0.4, 1.34)},
        {"aspect": (1.33, 2)},
    ],
)
async def test_limits_are_allowed(limits: dict[str, Any], tmp_path: Path) -> None:
    """What is exactly at a limit is within it."""
    (tmp_path / "x").write_bytes(GOOD)
    assert (await inspect_media(picture_request(tmp_path / "x"), limited(**limits))).problems == ()


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"duration_s": (3, 60)}, "it must last between 3 and 60 s (got 1.00 s)"),
        ({"duration_s": (0, 0.5)}, "it must last between 0 and 0.5 s (got 1.00 s)"),
        ({"fps_above": 12}, "it must have more than 12 frames a second (got 12)"),
        ({"formats": ("mov",)}, "it must be a video in mov (got mp4)"),
        ({"min_short_side_px": 320}, "it must have at least 320 px on the shorter side (got 320 x 240 px)"),
        ({"duration_s": (1, 60), "fps_above": 11, "advised_duration_s": (50, 60), "advised_codec": "hevc"}, None),
    ],
)
async def test_videos(limits: dict[str, Any], problem: str | None, tmp_path: Path) -> None:
    """Each limit on a video is checked against the bytes; what is only advised refuses nothing."""
    (tmp_path / "x").write_bytes(movie())
    route = limited(**({"role": "video", "formats": ("mp4", "mov")} | limits))
    if problem is None:
        assert (await inspect_media(video_request(tmp_path / "x"), route)).problems == ()
    else:
        assert await problem_of(video_request(tmp_path / "x"), route) == problem


async def test_an_advised_format_refuses_nothing(tmp_path: Path) -> None:
    """It is told, once; a format that is not advised against is not, and what is no video is refused all the same."""
    (tmp_path / "x").write_bytes(movie("mov"))
    clip = VideoExtension(model="wan2.7-i2v", prompt="On", clip=tmp_path / "x")
    inspection = await inspect_media(clip, find_route("happyhorse", "video_extension", "wan2.7-i2v"))
    assert inspection.problems == ()
    assert [sentence.partition(": ")[2] for sentence in inspection.advice] == [
        "mp4 is advised (got mov)",
        "between 2 and 15 s is advised (got 1.00 s)",
    ]
    usual = limited(role="video", formats=(), advised_formats=("mov",))
    assert await inspect_media(video_request(tmp_path / "x"), usual) == Inspection(
        fingerprints={("video", None): f"sha256:{sha256(movie('mov'))}"}
    )
    (tmp_path / "x").write_bytes(GOOD)
    assert await problem_of(video_request(tmp_path / "x"), usual) == "it must be a video (got a picture in png)"


async def test_a_requests_own_values_are_advised_on_too() -> None:
    """Beside what is told of its media."""
    request = TextToVideo(model="wan2.7-t2v", prompt="p", duration=16)
    inspection = await inspect_media(request, find_route("happyhorse", "text_to_video", "wan2.7-t2v"))
    assert inspection == Inspection(advice=("duration: between 2 and 15 seconds is advised (got 16)",))


@pytest.mark.parametrize(("seconds", "fits"), [(10.04, True), (10.2, False), (1.95, True), (1.85, False)])
async def test_a_containers_rounding_is_allowed(seconds: float, fits: bool) -> None:
    """A clip of ten seconds may last a frame more."""
    route = limited(role="video", formats=("mp4",), duration_s=(2, 10))
    medium = asset(kind="video", media_type="video/mp4", width=None, height=None, duration_s=seconds)
    told = () if fits else (f"video='s3://b/a.png': it must last between 2 and 10 s (got {seconds:.2f} s)",)
    assert (await inspect_media(video_request(medium), route)).problems == told


@pytest.mark.parametrize("gateway", ["ttapi", "uniall", "infiflow", "happyhorse", "dashscope"])
async def test_a_megabyte_is_the_larger_of_its_meanings(gateway: str) -> None:
    """The sources say no more than MB: a file of exactly so many times 2^20 bytes fits, and a byte more does not."""
    route = next(route for route in routes(gateway) if limit_of(route, "references") and route.capability == "reference_to_video")
    limit = limit_of(route, "references")
    assert limit is not None
    assert limit.max_bytes % 2**20 == 0
    sizes = {limit.max_bytes: 0, limit.max_bytes + 1: 1}
    for size, number in sizes.items():
        medium = asset(bytes=size)
        assert len((await inspect_media(picture_request(medium), route)).problems) == number


async def test_sounds(tmp_path: Path) -> None:
    """A sound is checked as a sound, beside the picture that it belongs to."""
    (tmp_path / "a.mp3").write_bytes(sound(seconds=1))
    (tmp_path / "a.png").write_bytes(GOOD)
    request = ImageAudioToVideo(model="m", prompt="p", image=tmp_path / "a.png", audio=tmp_path / "a.mp3")
    inspection = await inspect_media(request, limited(role="audio", formats=("mp3",), duration_s=(2, 14)))
    assert len(inspection.problems) == 1
    assert re.fullmatch(rf"audio='{tmp_path}/a\.mp3': it must last between 2 and 14 s \(got 1\.0\d s\)", inspection.problems[0])
    assert set(inspection.fingerprints) == {("image", None)}


async def test_without_a_limit(tmp_path: Path) -> None:
    """Where a source names no limits, a picture must still be a picture that opens."""
    (tmp_path / "x").write_bytes(movie())
    (tmp_path / "good").write_bytes(picture("gif"))
    bare = ANY.model_copy(update={"media": ()})
    assert await problem_of(picture_request(tmp_path / "x"), bare) == "it must be a picture (got a video in mp4)"
    assert (await inspect_media(picture_request(tmp_path / "good"), bare)).problems == ()


def asset(**facts: Any) -> MediaAsset:
    usual: dict[str, Any] = {"kind": "image", "uri": "s3://b/a.png", "media_type": "image/png", "bytes": 100, "sha256": "AB"}
    return MediaAsset(**(usual | {"width": 640, "height": 480} | facts))


@pytest.mark.parametrize(
    ("facts", "limits", "problem"),
    [
        ({"media_type": "text/html"}, {}, "it must be a picture in jpeg or png or webp (got 'text/html')"),
        ({"media_type": "video/mp4", "kind": "video"}, {}, "it must be a picture in jpeg or png or webp (got a video in mp4)"),
        ({"bytes": 11_000_000}, {}, "it must have at most 10,000,000 bytes (got 11,000,000)"),
        ({"width": 64}, {"min_side_px": 300}, "it must have at least 300 px on each side (got 64 x 480 px)"),
    ],
)
async def test_assets(facts: dict[str, Any], limits: dict[str, Any], problem: str) -> None:
    """An asset is checked by the facts that it carries."""
    inspection = await inspect_media(picture_request(asset(**facts)), limited(**limits))
    assert inspection.problems == (f"references[0]='s3://b/a.png': {problem}",)


async def test_unknown_facts() -> None:
    """A limit that cannot be checked is named, and refuses nothing."""
    route = limited(role="video", formats=("mp4",), duration_s=(3, 60), fps_above=8, aspect=(0.4, 2.5))
    medium = asset(kind="video", media_type="video/mp4", width=None, height=None)
    inspection = await inspect_media(video_request(medium), route)
    assert inspection.problems == ()
    assert inspection.fingerprints == {("video", None): "sha256:ab"}
    way_out = "is checked by the provider alone; install prefect-happyhorse[media] to have it checked here"
    assert inspection.unchecked == tuple(f"video='s3://b/a.png': its {what} {way_out}" for what in ("size", "playing time", "frame rate"))


async def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow, format and length are checked, and what is not is said."""
    monkeypatch.setattr(probes, "can_measure", lambda _: False)  # pyright: ignore[reportUnknownLambdaType]
    content = picture("png", 10, 10)
    (tmp_path / "x").write_bytes(content)
    inspection = await inspect_media(picture_request(tmp_path / "x"), limited(min_side_px=300))
    assert (inspection.problems, len(inspection.unchecked)) == ((), 1)
    assert await problem_of(picture_request(tmp_path / "x"), limited(max_bytes=10)) == f"it must have at most 10 bytes (got {len(content)})"


def what_python_says_of(text: bytes) -> str:
    """Each version of Python has its own words for base64 that is none."""
    with pytest.raises(binascii.Error) as told:
        base64.b64decode(text, validate=True)
    return str(told.value)


def what_python_says_of_a_null() -> str:
    """And for a path that is none."""
    with pytest.raises(ValueError, match="null") as told:
        Path("x\x00y").stat()
    return str(told.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("data:image/png;base64,@@@@", f"its base64 is wrong: {what_python_says_of(b'@@@@')}"),
        ("data:image/png;base64", "it is a data URL without a comma"),
        ("data:image/png;base64,", "it must be a picture in jpeg or png or webp (got an empty file)"),
        ("data:text/plain,notes%20about%20a%20horse", "it must be a picture in jpeg or png or webp (got something else)"),
        ("memory://nothing/at/all.png", "there is no such file"),
        ("memory://folder", "it is a folder"),
        ("memory://folder/long.png", "it must have at most 10,000,000 bytes (got 11,000,000)"),
        ("abfs://container/horse.png", None),
        ("s3://bucket/horse.png", None),
        ("https://example.com:port/a.png", "it must be a web address"),
        ("x\x00y", f"it is no path: {what_python_says_of_a_null()}"),
        ("/dev/null", "it is not an ordinary file"),
    ],
)
async def test_unreadable(url: str, problem: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps a medium from being read is told as a problem of the request, not as a crash."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("FSSPEC_S3_DEFAULT_FILL_CACHE", "False")
    await Store("memory://folder").write("long.png", bytes(11_000_000))
    found = await problem_of(picture_request(url), limited())
    assert found == (problem or found)
    assert problem or found.startswith("it cannot be read: ")
    assert "sesame" not in found


async def test_long_data_urls_are_not_repeated() -> None:
    """A data URL is named by its beginning only."""
    inspection = await inspect_media(picture_request("data:image/png;base64," + "A" * 10_000), limited())
    assert inspection.problems == (
        "references[0]='data:image/png;base64,AAAAAAAA...': it must be a picture in jpeg or png or webp (got something else)",
    )


async def test_schemes_are_left_to_the_catalog() -> None:
    """An address that nothing can be read from is reported once, by the catalog's check."""
    assert await inspect_media(picture_request("ftp://example.com/a.png", "http://[::1"), ANY) == Inspection()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="The superuser may read everything.")
async def test_no_right_to_read(tmp_path: Path) -> None:
    """A file that may not be read is told so."""
    (tmp_path / "x").write_bytes(GOOD)
    (tmp_path / "x").chmod(0)
    assert await problem_of(picture_request(tmp_path / "x"), limited()) == "it cannot be read: Permission denied"


async def test_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of media from elsewhere are gone afterwards, and the user's own files stay as they are."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    store = Store(f"memory://{os.urandom(6).hex()}")
    await store.write("horse.png", GOOD)
    await inspect_media(picture_request(store.uri("horse.png"), "data:image/png;base64,AAAA"), ANY)
    assert os.listdir(tmp_path) == []


def test_every_media_field_of_every_route_has_its_kind() -> None:
    """A limit is found for each field that it is about, and its formats are of the field's kind."""
    for route in routes():
        for limit in route.media:
            for field in limit.request_fields:
                assert limit_of(route, field) in route.media
    assert limit_of(ANY, "video") is None


def test_image_to_video_limit() -> None:
    """A first frame has the limits of a picture."""
    route = next(route for route in routes() if route.capability == "image_to_video" and route.media)
    request = ImageToVideo(model=route.model, image="x")
    assert limit_of(route, "image") == route.media[0]
    assert request.capability == route.capability


@pytest.mark.parametrize(
    "url", ["https://user:s3cret@example.com/a.png", "http://s3cret@example.com/a.png", "webdav://user:s3cret@h/a.png"]
)
async def test_a_user_name_and_password_go_nowhere(url: str) -> None:
    """They are refused before anything is sent, and not repeated."""
    problem = await problem_of(picture_request(url), limited())
    assert "it must hold no user name and password" in problem
    assert "s3cret" not in problem


async def test_a_container_is_no_user() -> None:
    """As Azure's addresses name one."""
    problem = await problem_of(picture_request("abfs://box@account.dfs.core.windows.net/a.png"), limited())
    assert "user name" not in problem
