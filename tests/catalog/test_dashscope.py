"""What the maker's routes take, beyond its vectors."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_happyhorse.catalog import find_problems, find_route
from prefect_happyhorse.domain.requests import parse_request
from prefect_happyhorse.gateways import build_body

A, B = "https://example.com/a", "https://example.com/b"


def asked(capability: str, model: str, **fields: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The problems of a request, and the body that it would become."""
    request = parse_request({"capability": capability, "model": model, "prompt": "It runs", **fields})
    route = find_route("dashscope", capability, model)
    return find_problems(request, route), build_body(request, route)


def test_a_chinese_prompt_names_its_references_in_chinese() -> None:
    """Wan's own way; the English one has a capital letter, a space and no brackets."""
    _, body = asked("reference_to_video", "wan2.7-r2v", prompt="\u8ba9@1\u9a91\u4e0a@2", references=[A, B])
    assert body["input"]["prompt"] == "\u8ba9\u56fe1\u9a91\u4e0a\u56fe2"
    _, body = asked("reference_to_video", "happyhorse-1.1-r2v", prompt="\u8ba9@1\u9a91\u4e0a@2", references=[A, B])
    assert body["input"]["prompt"] == "\u8ba9[Image 1]\u9a91\u4e0a[Image 2]"


def test_a_reference_video_shortens_what_can_be_made() -> None:
    """Ten seconds in place of fifteen; the first frame stands outside of the five references."""
    assert asked("multimodal_to_video", "wan2.7-r2v", references=[A], duration=15)[0] == ()
    problems, _ = asked("multimodal_to_video", "wan2.7-r2v", reference_videos=[A], duration=15)
    assert problems == ("duration must be between 2 and 10 seconds (got 15)",)
    five = [f"{A}{number}" for number in range(5)]
    assert asked("multimodal_to_video", "wan2.7-r2v", first_frame=B, references=five)[0] == ()
    problems, _ = asked("multimodal_to_video", "wan2.7-r2v", reference_videos=[B], references=five)
    assert problems == ("reference_videos and references must hold at most 5 (got 6)",)


def test_what_the_provider_would_ignore_is_refused() -> None:
    """A ratio beside a first frame."""
    problems, _ = asked("multimodal_to_video", "wan2.7-r2v", first_frame=A, references=[B], aspect_ratio="16:9")
    assert problems == ("aspect_ratio must be left out beside first_frame, where the provider ignores it",)
    assert asked("multimodal_to_video", "wan2.7-r2v", references=[B], aspect_ratio="16:9")[0] == ()


@pytest.mark.parametrize(
    ("model", "size", "written"),
    [
        ("wan2.7-image", "2k", "2K"),
        ("wan2.7-image", "1536x1024", "1536*1024"),
        ("wan2.7-image-pro", "4096*4096", "4096*4096"),
        ("wan2.6-t2i", "1280*1280", "1280*1280"),
        ("qwen-image-plus", "1664x928", "1664*928"),
    ],
)
def test_a_size_is_written_as_the_provider_writes_it(model: str, size: str, written: str) -> None:
    """With a star, and the words in capitals."""
    problems, body = asked("text_to_image", model, size=size)
    assert (problems, body["parameters"]["size"]) == ((), written)


@pytest.mark.parametrize(
    ("model", "size", "rule"),
    [
        ("wan2.7-image", "4K", "1K, 2K, or width*height with 589,824 to 4,194,304 pixels in all and a ratio between 0.125 and 8"),
        ("wan2.7-image", "4096*512", None),
        ("wan2.7-image", "8000*512", "1K, 2K, or width*height"),
        ("wan2.6-t2i", "1024*1024", "width*height with 1,628,160 to 2,073,600 pixels in all and a ratio between 0.25 and 4"),
        ("qwen-image", "1024*1024", "one of 1664*928, 1472*1104, 1328*1328, 1104*1472, 928*1664"),
    ],
)
def test_a_size_that_is_not_taken_is_refused_with_the_rule(model: str, size: str, rule: str | None) -> None:
    """Words, pixels in all, and the ratio."""
    problems, _ = asked("text_to_image", model, size=size)
    assert problems == () if rule is None else problems[0].startswith(f"size must be {rule}"), problems


def test_one_picture_at_a_time_is_said_as_such() -> None:
    """And not as a range."""
    assert asked("text_to_image", "qwen-image", n=2)[0] == ("n must be 1 (got 2)",)


def test_a_prompt_in_a_message_has_its_limit() -> None:
    """The provider cuts it silently, and bills it."""
    problems, _ = asked("text_to_image", "wan2.6-t2i", prompt="a" * 2101)
    assert problems == ("prompt must have at most 2100 characters (got 2101)",)


def test_480p_is_for_the_newer_version() -> None:
    """It alone has a price for it."""
    assert asked("text_to_video", "happyhorse-1.1-t2v", resolution="480p")[0] == ()
    assert asked("text_to_video", "happyhorse-1.0-t2v", resolution="480p")[0] == ("resolution must be one of 720p, 1080p (got '480p')",)


def test_sound_goes_where_each_route_has_it() -> None:
    """As an address of its own for text, and among the media between two frames."""
    _, text = asked("text_to_video", "wan2.7-t2v", audio=A)
    assert text["input"]["audio_url"] == A
    _, frames = asked("first_last_frame", "wan2.7-i2v", first_frame=A, last_frame=B, audio=A)
    assert [entry["type"] for entry in frames["input"]["media"]] == ["first_frame", "last_frame", "driving_audio"]
    problems, _ = asked("text_to_video", "happyhorse-1.1-t2v", audio=A)
    assert problems[0].startswith("audio is not accepted here")


def test_pictures_of_an_image_model_are_counted() -> None:
    """Three for Qwen-Image, nine for Wan."""
    assert asked("reference_to_image", "qwen-image-3.0", references=[A] * 3)[0] == ()
    assert asked("reference_to_image", "qwen-image-3.0", references=[A] * 4)[0] == ("references must hold at most 3 (got 4)",)
