"""What a user wants, said without regard to any gateway: eleven frozen classes, told apart by `capability`.

A field that is not set is not sent: a provider's own default is never repeated. What a route cannot do with a field is said by
the catalog's check, which lists every problem at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, Field, Strict, TypeAdapter

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.values import Resolution, Value

__all__ = [
    "MEDIA_FIELDS",
    "REQUEST_CLASSES",
    "FirstLastFrame",
    "GenerationRequest",
    "ImageAudioToVideo",
    "ImageEdit",
    "ImageToVideo",
    "Media",
    "MultimodalToVideo",
    "OptionValue",
    "ReferenceToImage",
    "ReferenceToVideo",
    "TextToImage",
    "TextToVideo",
    "VideoEdit",
    "VideoExtension",
    "iter_media",
    "parse_request",
    "replace_media",
]


def _path_to_text(value: object) -> object:
    if inspect.isawaitable(value) or hasattr(value, "result"):
        raise ValueError("a medium must be there before the request (got a future or coroutine); call its .result(), or await it, first")
    return str(value) if isinstance(value, Path) else value


def _refuse_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Media = Annotated[MediaAsset | Annotated[str, Strict()], BeforeValidator(_path_to_text)]
"""An http(s) URL, an fsspec URL, a local path, or the `MediaAsset` that an earlier job returned."""

OptionValue = bool | int | float | str
"""The value of a route's own extra."""

WholeNumber = Annotated[int, BeforeValidator(_refuse_boolean)]

MEDIA_FIELDS = ("image", "mask", "references", "first_frame", "last_frame", "clip", "video", "reference_videos", "audio", "voice")
"""The fields that hold media, in the order in which they are published and counted."""


class _Request(Value):
    model: str = Field(min_length=1, description="The model, as the gateway names it.")
    options: Mapping[str, OptionValue] = Field(
        default_factory=dict, description="The route's own extras, for example quality or prompt_extend."
    )


class _Prompted(_Request):
    prompt: str = Field(min_length=1, description="What to make. References are named @1 to @9.")


class _Seeded(_Request):
    seed: WholeNumber | None = Field(default=None, description="Random seed.")
    watermark: bool | None = Field(default=None, description="Whether the provider puts its watermark on the result.")


class _Image(_Seeded):
    negative_prompt: str | None = Field(default=None, description="What to keep out of the picture.")
    resolution: Resolution | None = Field(default=None, description="Resolution class in lower case, for example 1k.")
    aspect_ratio: str | None = Field(default=None, description="Width to height, for example 16:9.")
    size: str | None = Field(default=None, description="Size as the model names it, for example 1536x1024.")
    n: WholeNumber | None = Field(default=None, description="How many pictures to make.")


class _Video(_Seeded):
    negative_prompt: str | None = Field(default=None, description="What to keep out of the video.")
    resolution: Resolution | None = Field(default=None, description="Resolution class in lower case, for example 720p.")
    aspect_ratio: str | None = Field(default=None, description="Width to height, for example 16:9.")
    size: str | None = Field(default=None, description="Size as the model names it.")
    duration: WholeNumber | None = Field(default=None, description="Playing time in seconds.")


class TextToImage(_Image, _Prompted):
    """A picture from a prompt.

    Example:
        >>> TextToImage(model="gpt-image-2", prompt="A white horse").capability
        'text_to_image'
    """

    capability: Literal["text_to_image"] = "text_to_image"


class ImageEdit(_Image, _Prompted):
    """A picture changed as the prompt says.

    Example:
        >>> ImageEdit(model="gpt-image-2", prompt="Make it dusk", image="horse.png").image
        'horse.png'
    """

    capability: Literal["image_edit"] = "image_edit"
    image: Media = Field(description="The picture to change.")
    mask: Media | None = Field(default=None, description="A PNG that marks where to change it.")


class ReferenceToImage(_Image, _Prompted):
    """A picture from a prompt and reference pictures.

    Example:
        >>> len(ReferenceToImage(model="gpt-image-2", prompt="@1 on a hill", references=["horse.png"]).references)
        1
    """

    capability: Literal["reference_to_image"] = "reference_to_image"
    references: tuple[Media, ...] = Field(description="Reference pictures; @1 is the first.")


class TextToVideo(_Video, _Prompted):
    """A video from a prompt.

    Example:
        >>> TextToVideo(model="wan2.7-t2v", prompt="A white horse", resolution="720P").resolution
        '720p'
    """

    capability: Literal["text_to_video"] = "text_to_video"
    audio: Media | None = Field(default=None, description="A sound that the video is to follow.")


class ImageToVideo(_Video):
    """A video that starts from a picture.

    Example:
        >>> ImageToVideo(model="happyhorse-1.0-i2v", image="horse.png").prompt is None
        True
    """

    capability: Literal["image_to_video"] = "image_to_video"
    image: Media = Field(description="The first frame.")
    prompt: str | None = Field(default=None, min_length=1, description="What happens in the video.")


class FirstLastFrame(_Video, _Prompted):
    """A video between two boundary frames.

    Example:
        >>> FirstLastFrame(model="wan2.7-i2v", prompt="It rains", first_frame="a.png", last_frame="b.png").last_frame
        'b.png'
    """

    capability: Literal["first_last_frame"] = "first_last_frame"
    first_frame: Media = Field(description="The first frame.")
    last_frame: Media = Field(description="The last frame.")
    audio: Media | None = Field(default=None, description="A sound that the video is to follow.")


class VideoExtension(_Video, _Prompted):
    """A video that goes on where a clip ends.

    Example:
        >>> VideoExtension(model="wan2.7-i2v", prompt="It walks on", clip="horse.mp4").clip
        'horse.mp4'
    """

    capability: Literal["video_extension"] = "video_extension"
    clip: Media = Field(description="The clip to continue.")
    last_frame: Media | None = Field(default=None, description="The last frame to arrive at.")


class ReferenceToVideo(_Video, _Prompted):
    """A video from a prompt and reference pictures.

    Example:
        >>> ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=["horse.png"], duration=5).duration
        5
    """

    capability: Literal["reference_to_video"] = "reference_to_video"
    references: tuple[Media, ...] = Field(description="Reference pictures; @1 is the first.")


class ImageAudioToVideo(_Video, _Prompted):
    """A video of a picture that moves to a sound.

    Example:
        >>> ImageAudioToVideo(model="video-pro-720p", prompt="It neighs", image="horse.png", audio="neigh.mp3").audio
        'neigh.mp3'
    """

    capability: Literal["image_audio_to_video"] = "image_audio_to_video"
    image: Media = Field(description="The picture.")
    audio: Media = Field(description="The sound.")


class MultimodalToVideo(_Video, _Prompted):
    """A video from pictures, videos and sound together.

    Example:
        >>> MultimodalToVideo(model="wan2.7-r2v", prompt="@1 runs", references=["horse.png"]).reference_videos
        ()
    """

    capability: Literal["multimodal_to_video"] = "multimodal_to_video"
    first_frame: Media | None = Field(default=None, description="The first frame.")
    references: tuple[Media, ...] = Field(default=(), description="Reference pictures; @1 is the first.")
    reference_videos: tuple[Media, ...] = Field(default=(), description="Reference videos.")
    audio: Media | None = Field(default=None, description="The sound.")
    voice: Media | tuple[Media, ...] | None = Field(
        default=None, description="The voice of the reference video's subject; a tuple holds one for each video, in their order."
    )


class VideoEdit(_Video, _Prompted):
    """A video changed as the prompt says.

    Example:
        >>> VideoEdit(model="wan2.7-videoedit", prompt="Make it snow", video="horse.mp4").references
        ()
    """

    capability: Literal["video_edit"] = "video_edit"
    video: Media = Field(description="The video to change.")
    references: tuple[Media, ...] = Field(default=(), description="Reference pictures; @1 is the first.")


GenerationRequest = Annotated[
    TextToImage
    | ImageEdit
    | ReferenceToImage
    | TextToVideo
    | ImageToVideo
    | FirstLastFrame
    | VideoExtension
    | ReferenceToVideo
    | ImageAudioToVideo
    | MultimodalToVideo
    | VideoEdit,
    Field(discriminator="capability"),
]
"""Any of the eleven requests."""

REQUEST_CLASSES: Mapping[str, type[BaseModel]] = {
    kind.model_fields["capability"].default: kind for kind in cast("tuple[type[BaseModel], ...]", get_args(get_args(GenerationRequest)[0]))
}
"""The class of each capability."""

_ADAPTER: TypeAdapter[GenerationRequest] = TypeAdapter(GenerationRequest)


def parse_request(data: Mapping[str, Any] | str | bytes) -> GenerationRequest:
    """Read a request from a mapping or from JSON.

    Args:
        data: The fields, `capability` among them, as a mapping or as JSON text.

    Returns:
        The request, of the class that `capability` names.

    Raises:
        pydantic.ValidationError: When a field is unknown, missing or of the wrong type; all problems at once.

    Example:
        >>> parse_request('{"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A horse"}').model
        'gpt-image-2'
    """
    if isinstance(data, (str, bytes)):
        return _ADAPTER.validate_json(data)
    return _ADAPTER.validate_python(data)


def iter_media(request: GenerationRequest) -> Iterator[tuple[str, int | None, MediaAsset | str]]:
    """Every medium of a request, in a fixed order.

    Args:
        request: The request.

    Yields:
        Field name, position within the field (None where the field holds one medium), and the medium.

    Example:
        >>> request = ReferenceToVideo(model="m", prompt="@1", references=["a.png", "b.png"])
        >>> list(iter_media(request))
        [('references', 0, 'a.png'), ('references', 1, 'b.png')]
    """
    # A class without such a field is asked through pydantic's `__getattr__`, which takes ten times as long.
    fields: dict[str, object] = vars(request)
    for name in MEDIA_FIELDS:
        # Most are not set, and `isinstance` takes long where its class is of pydantic.
        if (value := fields.get(name)) is None:
            continue
        if isinstance(value, tuple):
            for position, medium in enumerate(cast("tuple[MediaAsset | str, ...]", value)):
                yield name, position, medium
        else:
            yield name, None, cast("MediaAsset | str", value)


def replace_media(request: GenerationRequest, media: Mapping[tuple[str, int | None], MediaAsset | str]) -> GenerationRequest:
    """A copy of a request with other media in the same places.

    Args:
        request: The request.
        media: The new media, by field name and position, as `iter_media` gives them; a place that is not named keeps its medium.

    Returns:
        The copy.

    Example:
        >>> request = ReferenceToVideo(model="m", prompt="@1", references=["a.png", "b.png"])
        >>> replace_media(request, {("references", 1): "https://example.com/b.png"}).references
        ('a.png', 'https://example.com/b.png')
    """
    changed: dict[str, object] = {}
    for name, position, medium in iter_media(request):
        new = media.get((name, position), medium)
        changed[name] = new if position is None else (*cast("tuple[object, ...]", changed.get(name, ())), new)
    return request.model_copy(update=changed)
