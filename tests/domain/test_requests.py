from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from prefect_happyhorse.domain import requests
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import (
    MEDIA_FIELDS,
    REQUEST_CLASSES,
    GenerationRequest,
    ImageToVideo,
    MultimodalToVideo,
    ReferenceToVideo,
    TextToImage,
    TextToVideo,
    VideoEdit,
    iter_media,
    parse_request,
    replace_media,
)

ASSET = MediaAsset(kind="image", uri="file:///outputs/horse.png", media_type="image/png", bytes=3, sha256="00", width=640, height=480)
MEDIA: dict[str, Any] = {
    "image": "horse.png",
    "mask": "mask.png",
    "references": ["https://example.com/a.png", "s3://b/c.png"],
    "first_frame": "first.png",
    "last_frame": "last.png",
    "clip": "clip.mp4",
    "video": "horse.mp4",
    "reference_videos": ["run.mp4"],
    "audio": "neigh.mp3",
    "voice": "voice.mp3",
}
PLAIN: dict[str, Any] = {
    "prompt": "@1 runs",
    "negative_prompt": "blur",
    "resolution": "720p",
    "aspect_ratio": "16:9",
    "size": "1024x1024",
    "duration": 5,
    "seed": 7,
    "watermark": False,
    "n": 2,
    "options": {"prompt_extend": True, "retry_times": 1, "strength": 0.5, "preset": "fun"},
}
every_class = pytest.mark.parametrize("kind", REQUEST_CLASSES.values(), ids=REQUEST_CLASSES.keys())


def test_a_voice_for_each_video_keeps_its_place() -> None:
    """As several media do: listed by position, replaced one by one, and the same after JSON."""
    several = MultimodalToVideo(model="m", prompt="p", reference_videos=("a.mp4", "b.mp4"), voice=("a.mp3", ASSET))
    assert [(position, medium) for name, position, medium in iter_media(several) if name == "voice"] == [(0, "a.mp3"), (1, ASSET)]
    assert parse_request(several.model_dump_json()) == several
    replaced = replace_media(several, {("voice", 1): "b.mp3"})
    assert isinstance(replaced, MultimodalToVideo)
    assert replaced.voice == ("a.mp3", "b.mp3")


def everything(kind: type[BaseModel]) -> dict[str, Any]:
    """Each field that a class has, with a value."""
    return {"model": "m", **{name: value for name, value in {**PLAIN, **MEDIA}.items() if name in kind.model_fields}}


def test_there_are_eleven_classes() -> None:
    """Told apart by the capability, which is the class's name in small letters."""
    assert list(REQUEST_CLASSES) == [
        "text_to_image",
        "image_edit",
        "reference_to_image",
        "text_to_video",
        "image_to_video",
        "first_last_frame",
        "video_extension",
        "reference_to_video",
        "image_audio_to_video",
        "multimodal_to_video",
        "video_edit",
    ]
    assert list(REQUEST_CLASSES.values()) == list(get_args(get_args(GenerationRequest)[0]))
    assert [kind.__name__.lower() for kind in REQUEST_CLASSES.values()] == [name.replace("_", "") for name in REQUEST_CLASSES]


def test_every_field_is_known_to_these_tests() -> None:
    """A field that is new is filled in here, and said to be a medium or not."""
    fields = {name for kind in REQUEST_CLASSES.values() for name in kind.model_fields}
    assert fields == {"capability", "model", *PLAIN, *MEDIA}
    assert set(MEDIA) == set(MEDIA_FIELDS)


def test_the_module_gives_all_its_names() -> None:
    """`__all__` is sorted, and each name is there."""
    assert sorted(requests.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == list(requests.__all__)
    assert [name for name in requests.__all__ if not hasattr(requests, name)] == []


@every_class
def test_a_request_survives_json_and_pickle(kind: type[BaseModel]) -> None:
    """With every field set, and read back by its capability alone."""
    request = kind.model_validate(everything(kind))
    for again in (
        parse_request(request.model_dump_json()),
        parse_request(request.model_dump_json().encode()),
        parse_request(request.model_dump()),
    ):
        assert (type(again), again) == (kind, request)
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301 -- our own bytes


@every_class
def test_a_request_writes_only_what_is_set(kind: type[BaseModel]) -> None:
    """No default of a provider or of ours is among it."""
    given = everything(kind)
    assert json.loads(kind.model_validate(given).model_dump_json(exclude_unset=True)) == given


@every_class
def test_a_request_is_frozen(kind: type[BaseModel]) -> None:
    """It cannot be changed after it was checked."""
    request = kind.model_validate(everything(kind))
    with pytest.raises(ValidationError, match="frozen"):
        request.model = "another"


@every_class
def test_every_problem_is_told_at_once(kind: type[BaseModel]) -> None:
    """An unknown field, a missing model and a wrong type stand in one error."""
    given = {**everything(kind), "horse": 1, "options": 5}
    del given["model"]
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    assert {problem["loc"][0] for problem in caught.value.errors()} == {"horse", "options", "model"}


@every_class
def test_a_field_of_another_class_is_unknown(kind: type[BaseModel]) -> None:
    """A field means something in a class, or the class does not have it."""
    foreign = {name: value for name, value in {**PLAIN, **MEDIA}.items() if name not in kind.model_fields}
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({**everything(kind), **foreign})
    assert {(problem["loc"][0], problem["type"]) for problem in caught.value.errors()} == {(name, "extra_forbidden") for name in foreign}


@every_class
def test_every_class_needs_its_media_and_its_prompt(kind: type[BaseModel]) -> None:
    """What has to be there is what the class cannot do without."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "m"})
    required = {name for name, field in kind.model_fields.items() if field.is_required()} - {"model"}
    assert {problem["loc"][0] for problem in caught.value.errors()} == required


@pytest.mark.parametrize("capability", ["", "video", None])
def test_an_unknown_capability_is_refused(capability: str | None) -> None:
    """The error lists those that there are."""
    with pytest.raises(ValidationError, match="text_to_image"):
        parse_request({"capability": capability, "model": "m", "prompt": "p"})


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"capability": "text_to_image"'])
def test_json_that_is_no_request_is_refused(text: str) -> None:
    """As a wrong field is."""
    with pytest.raises(ValidationError):
        parse_request(text)


def test_media_are_addresses_paths_or_assets() -> None:
    """A Path is kept as its text, and an asset as itself, also through JSON."""
    request = ReferenceToVideo(
        model="m", prompt="@1 @2 @3", references=[Path("pictures") / "horse.png", ASSET, "https://example.com/a.png"]
    )
    assert request.references == (str(Path("pictures/horse.png")), ASSET, "https://example.com/a.png")
    assert parse_request(request.model_dump_json()) == request
    assert ImageToVideo(model="m", image=Path("horse.png")).image == "horse.png"


@pytest.mark.parametrize("medium", [None, 5, b"png", {"kind": "image"}, ["a.png"]])
def test_what_is_no_medium_is_refused(medium: object) -> None:
    """Numbers, bytes and half an asset."""
    with pytest.raises(ValidationError, match="image"):
        ImageToVideo.model_validate({"model": "m", "image": medium})


def test_one_text_is_not_a_list_of_references() -> None:
    """A forgotten bracket does not become a reference per letter."""
    with pytest.raises(ValidationError, match="references"):
        ReferenceToVideo.model_validate({"model": "m", "prompt": "p", "references": "a.png"})


def test_resolutions_are_lower_case() -> None:
    """Whichever way they are written."""
    assert [TextToVideo(model="m", prompt="p", resolution=text).resolution for text in ("720P", "1080p", None)] == ["720p", "1080p", None]
    with pytest.raises(ValidationError, match="resolution"):
        TextToVideo.model_validate({"model": "m", "prompt": "p", "resolution": 720})


@pytest.mark.parametrize("name", ["seed", "duration"])
@pytest.mark.parametrize("value", [True, False, 1.5, "five"])
def test_a_whole_number_is_no_truth_and_no_fraction(name: str, value: object) -> None:
    """`True` would otherwise be 1."""
    with pytest.raises(ValidationError, match=name):
        TextToVideo.model_validate({"model": "m", "prompt": "p", name: value})


def test_a_manifest_may_write_numbers_as_text() -> None:
    """A row of a CSV file has nothing but text."""
    request = TextToVideo.model_validate({"model": "m", "prompt": "p", "duration": "5", "seed": "7", "watermark": "false"})
    assert (request.duration, request.seed, request.watermark) == (5, 7, False)


def test_options_keep_their_types() -> None:
    """Truth, whole numbers, numbers and text are told apart, also through JSON."""
    options = {"a": True, "b": 1, "c": 1.0, "d": "1"}
    request = TextToImage(model="m", prompt="p", options=options)
    for again in (request, parse_request(request.model_dump_json())):
        assert [(name, type(value), value) for name, value in again.options.items()] == [
            (name, type(value), value) for name, value in options.items()
        ]


def test_options_hold_no_structure() -> None:
    """A route's extra is one value."""
    with pytest.raises(ValidationError, match="options"):
        TextToImage.model_validate({"model": "m", "prompt": "p", "options": {"a": {"b": 1}}})


@pytest.mark.parametrize("name", ["model", "prompt"])
def test_model_and_prompt_are_not_empty(name: str) -> None:
    """Nothing is asked for by an empty text."""
    with pytest.raises(ValidationError, match=name):
        TextToImage.model_validate({"model": "m", "prompt": "p", name: ""})


@every_class
def test_media_come_in_a_fixed_order(kind: type[BaseModel]) -> None:
    """Field by field, and within a field as they were given."""
    given = everything(kind)
    request = kind.model_validate(given)
    expected: list[tuple[str, int | None, str]] = []
    for name in MEDIA_FIELDS:
        value = given.get(name, [])
        expected += [(name, None, value)] if isinstance(value, str) else [(name, position, medium) for position, medium in enumerate(value)]
    assert list(iter_media(request)) == expected


def test_a_request_without_media_has_none() -> None:
    """Neither an empty list nor a field that is not set counts."""
    assert list(iter_media(TextToImage(model="m", prompt="p"))) == []
    assert list(iter_media(MultimodalToVideo(model="m", prompt="p"))) == []


@every_class
def test_media_are_replaced_in_their_places(kind: type[BaseModel]) -> None:
    """Every other field stays, and so does a medium whose place is not named."""
    request = kind.model_validate(everything(kind))
    places = {(name, position): f"https://example.com/{name}/{position}" for name, position, _ in iter_media(request)}
    replaced = replace_media(request, places)
    assert {(name, position): medium for name, position, medium in iter_media(replaced)} == places
    assert replaced.model_dump(exclude=set(MEDIA_FIELDS)) == request.model_dump(exclude=set(MEDIA_FIELDS))
    assert replace_media(request, {}) == request


def test_one_medium_of_several_is_replaced() -> None:
    """By its position."""
    request = VideoEdit(model="m", prompt="p", video="v.mp4", references=("a.png", ASSET))
    replaced = replace_media(request, {("references", 1): "https://example.com/b.png"})
    assert isinstance(replaced, VideoEdit)
    assert (replaced.video, replaced.references) == ("v.mp4", ("a.png", "https://example.com/b.png"))
    assert request.references == ("a.png", ASSET)
