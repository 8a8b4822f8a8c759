"""A picture, a video that stars it, and an edit of that video: three paid steps in a row, each bought once.

Run it with `python flows/image_to_video_edit.py`, or deploy it to a work pool.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from prefect_happyhorse import (
    GatewayCredentials,
    InvalidRequest,
    MediaAsset,
    MediaStore,
    ReferenceToVideo,
    TextToImage,
    VideoEdit,
    generate,
    resolve,
    show_gallery,
)
from prefect_happyhorse.catalog import find_problems

Option = bool | int | float | str


class Step(BaseModel):
    """What the three steps have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    credentials: str = Field(
        default="happyhorse", description="Name of a GatewayCredentials block, or a gateway whose key is in the environment."
    )
    resolution: str | None = Field(default=None, description="For example 720p or 1k. Empty: the provider's default.")
    aspect_ratio: str | None = Field(default=None, description="For example 16:9. Empty: the provider's default.")
    seed: int | None = Field(default=None, description="Random seed.")
    watermark: bool | None = Field(default=None, description="Whether the provider puts its watermark on the result.")
    negative_prompt: str | None = Field(default=None, description="What to keep out.")
    options: dict[str, Option] = Field(default_factory=dict, description="The route's own extras.")


class ImageStep(Step):
    """How the picture is made."""

    model: str = Field(default="gpt-image-2", description="A text-to-image model.")
    prompt: str = Field(default="A white horse on a misty meadow at dawn, long lens, soft light.", description="What to paint.")
    size: str | None = Field(default=None, description="Size as the model names it, for example 1536x1024.")


class VideoStep(Step):
    """How the picture becomes a video."""

    model: str = Field(default="happyhorse-1.0-r2v", description="A reference-to-video model.")
    prompt: str = Field(
        default="The white horse crosses a shallow river, water splashing, the camera follows.",
        description="What happens. The picture is @1, where the gateway can name references.",
    )
    duration: int | None = Field(default=None, description="Seconds.")
    references: list[str] = Field(default_factory=list, description="Further reference pictures, @2 and on.")


class EditStep(Step):
    """How the video is changed."""

    model: str = Field(default="happyhorse-1.0-video-edit", description="A video-edit model.")
    prompt: str = Field(default="Make it a snowy winter morning, keep the horse as it is.", description="What to change.")
    duration: int | None = Field(default=None, description="Seconds, where the route takes them.")
    references: list[str] = Field(default_factory=list, description="Reference pictures for the edit.")


_IMAGE, _VIDEO, _EDIT = ImageStep(), VideoStep(), EditStep()


class Chain(BaseModel):
    """What the three steps made."""

    model_config = ConfigDict(frozen=True)

    image: MediaAsset | str
    video: MediaAsset
    edit: MediaAsset


def _image_request(step: ImageStep) -> TextToImage:
    return TextToImage.model_validate(step.model_dump(exclude={"credentials"}))


def _video_request(step: VideoStep, image: MediaAsset | str) -> ReferenceToVideo:
    return ReferenceToVideo.model_validate(
        step.model_dump(exclude={"credentials", "references"}) | {"references": [image, *step.references]}
    )


def _edit_request(step: EditStep, video: MediaAsset | str) -> VideoEdit:
    return VideoEdit.model_validate(step.model_dump(exclude={"credentials"}) | {"video": video})


async def _refuse_early(image: ImageStep | None, video: VideoStep, edit: EditStep) -> None:
    """Check all three steps before the first is paid for; what a step is given by the one before cannot be checked yet."""
    to_come = "https://example.com/to-come"
    planned: list[tuple[str, Step, TextToImage | ReferenceToVideo | VideoEdit]] = [
        ("video", video, _video_request(video, to_come)),
        ("edit", edit, _edit_request(edit, to_come)),
    ]
    if image is not None:
        planned.insert(0, ("image", image, _image_request(image)))
    problems: list[str] = []
    for name, step, request in planned:
        account = (await GatewayCredentials.find(step.credentials)).to_account()
        try:
            found = find_problems(request, resolve(request, account.gateway))
        except InvalidRequest as error:
            found = (error.message, *error.problems)
        problems.extend(f"{name}: {problem}" for problem in found)
    if problems:
        raise InvalidRequest("The chain cannot run as it is asked for. Nothing was sent.", problems=tuple(problems))


@flow(name="image-to-video-edit", flow_run_name="image-to-video-edit {video.model}", persist_result=True, result_serializer="json")
async def image_to_video_edit(  # noqa: PLR0917 -- a flow's parameters are a form, filled in by name
    image: ImageStep = _IMAGE,
    video: VideoStep = _VIDEO,
    edit: EditStep = _EDIT,
    source_image: str | None = None,
    store: str | None = None,
    take: int = 1,
    deadline_s: float = 3600.0,
) -> Chain:
    """Make a picture, a video that stars it, and an edit of that video.

    Args:
        image: How the picture is made; left out of account when a picture is given.
        video: How the picture becomes a video.
        edit: How the video is changed.
        source_image: A picture to start from, as an http(s) URL, an fsspec URL or a path on the worker.
        store: Name of a MediaStore block. Empty: HAPPYHORSE_STORE, else the folder outputs.
        take: Another number makes another variation of the very same chain.
        deadline_s: How long each step may take, in seconds.

    Returns:
        The picture, the video and the edited video.
    """
    await _refuse_early(image if source_image is None else None, video, edit)
    place = await MediaStore.find(store)
    shown: list[tuple[str, MediaAsset]] = []
    picture: MediaAsset | str
    if source_image is None:
        picture = await generate(_image_request(image), image.credentials, place, take=take, deadline_s=deadline_s)
        shown.append(("image", picture))
    else:
        picture = source_image
    film = await generate(_video_request(video, picture), video.credentials, place, take=take, deadline_s=deadline_s)
    final = await generate(_edit_request(edit, film), edit.credentials, place, take=take, deadline_s=deadline_s)
    shown += [("video", film), ("edit", final)]
    await show_gallery(shown, store=place.to_store(), title="image to video edit")
    return Chain(image=picture, video=film, edit=final)


if __name__ == "__main__":
    chain = asyncio.run(image_to_video_edit())
    for name, asset in (("image", chain.image), ("video", chain.video), ("edit", chain.edit)):
        print(f"{name:6} {asset if isinstance(asset, str) else asset.uri}")
