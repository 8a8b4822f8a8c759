from __future__ import annotations

from typing import Any, get_args

import pytest

from prefect_happyhorse.catalog import GATEWAYS, DialectName, find_route, gateway_facts, resolve
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.domain.requests import ImageEdit, MultimodalToVideo, ReferenceToVideo, VideoEdit, VideoExtension, parse_request
from prefect_happyhorse.gateways import DIALECTS, build_body, form_parts, get_gateway

ADDRESSES = [f"https://example.com/{number}.png" for number in range(1, 10)]


def body(gateway: str, **request: Any) -> dict[str, Any]:
    parsed = parse_request(request)
    return build_body(parsed, resolve(parsed, gateway))


def test_only_what_is_set_is_sent() -> None:
    """No default of the provider is repeated."""
    assert body("happyhorse", capability="text_to_image", model="gpt-image-2", prompt="A horse") == {
        "model": "gpt-image-2",
        "prompt": "A horse",
    }
    assert body("ttapi", capability="reference_to_video", model="happyhorse-1.1-r2v", prompt="A horse", references=ADDRESSES[:1]) == {
        "model": "happyhorse-1.1-r2v",
        "input": {"prompt": "A horse", "media": [{"type": "reference_image", "url": ADDRESSES[0]}]},
    }


def test_what_is_false_or_nothing_is_sent_when_it_is_set() -> None:
    """A watermark that is not wanted has to be said, and so has a seed of 0."""
    sent = body(
        "ttapi", capability="reference_to_video", model="happyhorse-1.1-r2v", prompt="A", references=ADDRESSES[:1], watermark=False, seed=0
    )
    assert sent["parameters"] == {"watermark": False, "seed": 0}


def test_mentions_are_written_as_the_gateway_reads_them() -> None:
    """Each gateway in its own way, and untouched where it has none."""
    names = {
        gateway: body(gateway, capability="reference_to_video", model=model, prompt="@1 on @2", references=ADDRESSES[:2], duration=5)
        for gateway, model in [("ttapi", "happyhorse-1.1-r2v"), ("infiflow", "happyhorse-1.1-r2v"), ("uniall", "happy-horse-720p")]
    }
    assert names["ttapi"]["input"]["prompt"] == names["uniall"]["prompt"] == "character1 on character2"
    assert names["infiflow"]["input"]["prompt"] == "[Image 1] on [Image 2]"


def test_typed_media_keep_the_order_of_their_kinds() -> None:
    """A clip before the last frame; first frame, videos with their voice, then pictures."""
    extension = VideoExtension(model="wan2.7-i2v", prompt="On", clip="https://h/c.mp4", last_frame="https://h/l.png")
    assert [entry["type"] for entry in build_body(extension, resolve(extension, "happyhorse"))["input"]["media"]] == [
        "first_clip",
        "last_frame",
    ]
    mixed = MultimodalToVideo(
        model="wan2.7-r2v",
        prompt="On",
        references=("https://h/1.png", "https://h/2.png"),
        reference_videos=("https://h/v.mp4",),
        voice="https://h/v.mp3",
        first_frame="https://h/f.png",
    )
    assert build_body(mixed, resolve(mixed, "happyhorse"))["input"]["media"] == [
        {"type": "first_frame", "url": "https://h/f.png"},
        {"type": "reference_video", "url": "https://h/v.mp4", "reference_voice": "https://h/v.mp3"},
        {"type": "reference_image", "url": "https://h/1.png"},
        {"type": "reference_image", "url": "https://h/2.png"},
    ]


@pytest.mark.parametrize("gateway", ["happyhorse", "dashscope"])
def test_each_video_has_its_voice(gateway: str) -> None:
    """In their order, also after JSON, and the pictures have none."""
    spoken = MultimodalToVideo(
        model="wan2.7-r2v",
        prompt="On",
        references=("https://h/1.png",),
        reference_videos=("https://h/a.mp4", "https://h/b.mp4"),
        voice=("https://h/a.mp3", "https://h/b.mp3"),
    )
    request = parse_request(spoken.model_dump_json())
    assert build_body(request, resolve(request, gateway))["input"]["media"] == [
        {"type": "reference_video", "url": "https://h/a.mp4", "reference_voice": "https://h/a.mp3"},
        {"type": "reference_video", "url": "https://h/b.mp4", "reference_voice": "https://h/b.mp3"},
        {"type": "reference_image", "url": "https://h/1.png"},
    ]


def test_the_first_reference_goes_ahead_of_the_rest() -> None:
    """One alone leaves no empty list behind."""
    for number in (1, 2, 9):
        sent = body("happyhorse", capability="reference_to_video", model="video-pro-720p", prompt="A", references=ADDRESSES[:number])
        expected = {"image_url": ADDRESSES[0]} | ({"extra_images": ADDRESSES[1:number]} if number > 1 else {})
        assert {name: value for name, value in sent.items() if "image" in name} == expected


def test_a_message_is_text_alone_or_text_and_pictures() -> None:
    """As the remake of a video wants it."""
    alone = VideoEdit(model="omni_flash_edit", prompt="Snow", video="https://h/v.mp4")
    assert build_body(alone, resolve(alone, "happyhorse"))["messages"] == [{"role": "user", "content": "Snow"}]
    pictured = alone.model_copy(update={"references": tuple(ADDRESSES[:2])})
    assert build_body(pictured, resolve(pictured, "happyhorse"))["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Snow"},
                {"type": "image_url", "image_url": {"url": ADDRESSES[0]}},
                {"type": "image_url", "image_url": {"url": ADDRESSES[1]}},
            ],
        }
    ]


def test_a_message_names_its_references_where_there_is_a_way() -> None:
    """The same words as in a plain prompt."""
    request = VideoEdit(model="omni_flash_edit", prompt="@1 in snow", video="https://h/v.mp4", references=tuple(ADDRESSES[:1]))
    route = resolve(request, "happyhorse").model_copy(update={"reference_name": "<{i}>"})
    assert build_body(request, route)["messages"][0]["content"][0] == {"type": "text", "text": "<1> in snow"}


def test_one_value_may_go_to_two_places() -> None:
    """As a number and as text."""
    sent = body("happyhorse", capability="text_to_video", model="omni_flash-fast", prompt="A", duration=8)
    assert (sent["duration"], sent["seconds"]) == (8, "8")


def test_an_asset_has_to_have_an_address_first() -> None:
    """A gateway cannot read what lies in our store."""
    asset = MediaAsset(kind="image", uri="file:///a.png", media_type="image/png", bytes=1, sha256="0")
    for request in (
        ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="A", references=("https://h/a.png", asset)),
        ImageEdit(model="gpt-image-2", prompt="A", image=asset),
        VideoEdit(model="omni_flash_edit", prompt="A", video="https://h/v.mp4", references=(asset,)),
    ):
        gateway = "happyhorse" if request.model != "happyhorse-1.1-r2v" else "ttapi"
        with pytest.raises(TypeError, match="holds an asset that has not been given an address"):
            build_body(request, resolve(request, gateway))


def test_form_parts_are_text_without_file_names() -> None:
    """Numbers and truths are written as JSON writes them."""
    parts = form_parts({"n": 1, "ratio": 0.5, "hd": True, "prompt": "Ein Pferd, 马", "number": "1"})
    assert parts == {
        "n": (None, "1"),
        "ratio": (None, "0.5"),
        "hd": (None, "true"),
        "prompt": (None, "Ein Pferd, 马"),
        "number": (None, "1"),
    }


@pytest.mark.parametrize("gateway", ["", "sandbox", "TTAPI"])
def test_an_unknown_gateway_is_told(gateway: str) -> None:
    """With those that there are."""
    with pytest.raises(CatalogError, match=f"There are {', '.join(GATEWAYS)}"):
        get_gateway(gateway)


def test_every_dialect_has_its_class() -> None:
    """Those that the catalog lets a data file name, and every gateway speaks its own."""
    assert set(DIALECTS) == set(get_args(DialectName))
    for gateway in GATEWAYS:
        assert type(get_gateway(gateway)) is DIALECTS[gateway_facts(gateway).dialect]
        assert get_gateway(gateway).facts is gateway_facts(gateway)


def test_a_token_exchange_needs_a_dialect_that_has_one() -> None:
    """Facts that promise one are refused before anything is sent with them."""
    facts = gateway_facts("infiflow").model_copy(update={"token": "POST /token"})
    with pytest.raises(CatalogError, match=r"infiflow: token = 'POST /token', but the dialect dashscope"):
        DIALECTS["dashscope"](facts)


def test_a_route_may_say_that_a_field_comes_from_several() -> None:
    """The first that is set is sent, and none where none is."""
    route = find_route("happyhorse", "text_to_video", "kling-video")
    fields = tuple(
        field.model_copy(update={"source": ("negative_prompt", "prompt")} if field.to == "prompt" else {}) for field in route.fields
    )
    several = route.model_copy(update={"fields": fields})
    request = parse_request({"capability": "text_to_video", "model": "kling-video", "prompt": "A"})
    assert build_body(request, several)["prompt"] == "A"
    assert build_body(request.model_copy(update={"negative_prompt": "blur"}), several)["prompt"] == "blur"
