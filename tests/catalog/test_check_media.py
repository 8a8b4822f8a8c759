"""Media and mentions: what a route takes, how many, and how a prompt may name them."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_happyhorse.catalog import Route, find_problems, find_route
from prefect_happyhorse.domain.requests import MultimodalToVideo

from .vectors import ASSET, SCHEMES, addresses, problems, ttapi, vector


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("@1 and @2", ()),
        ("@3", ("prompt names @3, but there are 2 references",)),
        ("@0", ("prompt names @0, but there are 2 references",)),
        ("@9 @3 @9", ("prompt names @3, but there are 2 references", "prompt names @9, but there are 2 references")),
        ("character9 and a@3.example and https://example.com/@4", ()),
    ],
)
def test_a_mention_has_its_reference(prompt: str, told: tuple[str, ...]) -> None:
    """One that goes beyond them is an error; a literal name and addresses are not mentions."""
    assert ttapi(prompt=prompt) == told


def test_one_reference_is_told_in_the_singular() -> None:
    """As in the rest of the sentence."""
    assert ttapi(prompt="@2", references=addresses(1)) == ("prompt names @2, but there is 1 reference",)


@pytest.mark.parametrize(
    ("route", "also"),
    [
        (("chanjing", "reference_to_video", "happyhorse-1.0-r2v"), ()),
        (("happyhorse", "reference_to_video", "happyhorse-1.0-r2v"), ()),
        (("uniall", "text_to_video", "happy-horse-720p"), ("prompt names @1, but there are 0 references",)),
    ],
)
def test_a_mention_is_refused_where_no_way_is_documented(route: tuple[str, str, str], also: tuple[str, ...]) -> None:
    """The gateway would read an at and a number, and guess."""
    assert problems(*route, prompt="@1 runs") == (
        *also,
        f"prompt names @1, but {route[0]} documents no way to name a reference here; describe it in words",
    )


@pytest.mark.parametrize("medium", ["https://example.com/a.png", "s3://bucket/a.png", "pictures/a.png", ASSET.model_dump()])
def test_media_may_lie_anywhere_that_can_be_read(medium: object) -> None:
    """Web, store, disk, or what an earlier job made."""
    assert ttapi(prompt="A horse", references=[medium]) == ()


@pytest.mark.parametrize(
    ("medium", "told"),
    [
        ("", "it is empty; give an http(s) URL, an fsspec URL or a local path"),
        ("ftp://example.com/a.png", f"it has the scheme 'ftp', which must be http, https, {SCHEMES}, or none for a local path"),
        ("https://", "it is a web address without a host"),
    ],
)
def test_a_medium_that_nothing_reads_is_told_with_its_place(medium: str, told: str) -> None:
    """Field and position, or the field alone."""
    assert ttapi(prompt="A horse", references=[*addresses(1), medium]) == (f"references[1]={medium!r}: {told}",)
    assert problems("happyhorse", "image_to_video", "kling-video", image=medium) == (f"image={medium!r}: {told}",)


def test_a_data_url_goes_where_the_source_says_so() -> None:
    """Infiflow takes base64, and nobody else says so."""
    medium = "data:image/png;base64,AAAA"
    assert problems("infiflow", "reference_to_video", "happyhorse-1.1-r2v", prompt="A horse", references=[medium]) == ()
    assert ttapi(prompt="A horse", references=[medium]) == ("references[0] must be an address that ttapi can read: it takes no data URLs",)


@pytest.mark.parametrize(
    ("route", "changes", "told"),
    [
        (
            ("happyhorse", "multimodal_to_video", "video-pro-720p"),
            {"references": addresses(2)},
            "references must hold at most 1 (got 2)",
        ),
        (
            ("happyhorse", "multimodal_to_video", "video-pro-720p"),
            {"reference_videos": ["a.mp4", "b.mp4"]},
            "reference_videos must hold at most 1 (got 2)",
        ),
        (
            ("happyhorse", "reference_to_video", "video-pro-720p"),
            {"references": addresses(10)},
            "references must hold at most 9 (got 10)",
        ),
        (("uniall", "video_edit", "happy-horse-edit-720p"), {"references": addresses(6)}, "references must hold at most 5 (got 6)"),
        (("uniall", "reference_to_video", "happy-horse-720p"), {"references": addresses(10)}, "references must hold at most 9 (got 10)"),
        # Where no source names a number, the sentence says whose nine they are.
        *(
            (route, {"references": addresses(10)}, "references must hold at most 9, since a prompt can name no more (got 10)")
            for route in (
                ("happyhorse", "reference_to_image", "gpt-image-2"),
                ("happyhorse", "reference_to_video", "wan2.7-r2v"),
                ("happyhorse", "reference_to_video", "happyhorse-1.0-r2v"),
                ("chanjing", "reference_to_video", "happyhorse-1.0-r2v"),
            )
        ),
        (
            ("happyhorse", "video_edit", "omni_flash_edit"),
            {"references": addresses(10)},
            "references must hold at most 9, since a prompt can name no more (got 10)",
        ),
        (
            ("happyhorse", "multimodal_to_video", "wan2.7-r2v"),
            {"reference_videos": ["a.mp4", "b.mp4"]},
            "voice belongs to a reference video and must hold one for each, in their order (got 1 for 2)",
        ),
        (
            ("happyhorse", "multimodal_to_video", "wan2.7-r2v"),
            {"reference_videos": None},
            "voice belongs to a reference video and must hold one for each, in their order (got 1 for 0)",
        ),
    ],
)
def test_media_are_counted(route: tuple[str, str, str], changes: dict[str, object], told: str) -> None:
    """Each way in which a route says how many there may be, and once each."""
    assert problems(*route, **changes) == (told,)


@pytest.mark.parametrize(("gateway", "fits"), [("happyhorse", True), ("dashscope", True), ("happyhorse", False)])
def test_each_of_several_videos_may_have_its_voice(gateway: str, fits: bool) -> None:
    """A voice for each, in their order, and none without its video."""
    voices = ["a.mp3", "b.mp3"] if fits else ["a.mp3", "b.mp3", "c.mp3"]
    request = MultimodalToVideo(model="wan2.7-r2v", prompt="They speak", reference_videos=("a.mp4", "b.mp4"), voice=tuple(voices))
    told = () if fits else ("voice belongs to a reference video and must hold one for each, in their order (got 3 for 2)",)
    assert find_problems(request, find_route(gateway, "multimodal_to_video", "wan2.7-r2v")) == told


def test_nine_references_fill_both_of_two_fields() -> None:
    """One goes ahead, eight follow."""
    assert problems("happyhorse", "reference_to_video", "video-fast-720p", references=addresses(9)) == ()


def changed(route: Route, **facts: Any) -> Route:
    return route.model_copy(update=facts)


def test_a_limit_alone_counts_too() -> None:
    """Where a route's fields say nothing of how many, its media limits do; and a field may want several."""
    route = find_route("happyhorse", "reference_to_video", "kling-video")
    request = vector("happyhorse", "reference_to_video", "kling-video", references=addresses(3))
    few = changed(
        route,
        fields=tuple(field.model_copy(update={"max_items": None}) for field in route.fields),
        media=tuple(limit.model_copy(update={"max_count": 2}) for limit in route.media),
    )
    assert find_problems(request, few) == ("references must hold at most 2 (got 3)",)
    many = changed(route, fields=tuple(field.model_copy(update={"min_items": 4} if field.to == "images" else {}) for field in route.fields))
    assert find_problems(request, many) == ("references must hold at least 4 (got 3)",)
