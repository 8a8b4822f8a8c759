"""A picture, a video that stars it, and an edit of that video: three paid steps in a row, each bought once.

Run it with `python flows/image_to_video_edit.py`, or deploy it to a work pool.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from functools import partial
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.flow_runs import apause_flow_run, asuspend_flow_run
from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

from prefect_happyhorse import (
    Budget,
    GenerationRequest,
    MediaAsset,
    MediaStore,
    ReferenceToVideo,
    TextToImage,
    VideoEdit,
    check_ready,
    check_requests,
    generate,
    show_gallery,
    submit,
    suspend_until_done,
)

_TO_COME = "https://example.com/to-come"
"""Stands for what an earlier step makes, when all steps are checked before the first is paid for."""

Wait = Literal["process", "suspend"]
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


class Chain(BaseModel, frozen=True):
    """What the three steps made."""

    image: MediaAsset | str
    video: MediaAsset
    edit: MediaAsset


class Decision(str, Enum):
    """What a person says to the picture before the expensive steps."""

    GO_ON = "go on"
    ANOTHER = "another picture"
    STOP = "stop"


class Approval(RunInput):
    """The form that a run which waits for approval shows in the Prefect UI."""

    decision: Decision = Field(default=Decision.GO_ON, description="Go on with this picture, pay for another one, or stop here.")


class NotApproved(RuntimeError):
    """Raised when a person stopped the run: the picture is kept, and nothing further was bought."""


def _request(kind: type[TextToImage | ReferenceToVideo | VideoEdit], step: Step, **media: object) -> GenerationRequest:
    return kind.model_validate(step.model_dump(exclude={"credentials"}) | media)


async def _made(
    request: GenerationRequest, payer: str, store: MediaStore, *, wait: Wait, take: int, deadline_s: float, **paid: Any
) -> MediaAsset:
    """What a request becomes; where the run is suspended meanwhile, it is found when the run comes here again."""
    if wait == "suspend":
        await suspend_until_done([await submit(request, payer, store, take=take, **paid)], store)
    return await generate(request, payer, store, take=take, deadline_s=deadline_s, **paid)


async def _approved(step: ImageStep, store: MediaStore, *, timeout_s: float, wait: Wait, take: int, **how: Any) -> MediaAsset:
    """A picture that a person said yes to; each no buys another variation."""
    pause = asuspend_flow_run if wait == "suspend" else partial(apause_flow_run, poll_interval=2)
    while True:
        picture = await _made(_request(TextToImage, step), step.credentials, store, wait=wait, take=take, **how)
        await show_gallery([("image", picture)], store=store.to_store(), title="image to video edit")
        question = (
            f"Take {take} is kept at {picture.uri} and shown among this run's artifacts. The video and its edit are not paid for yet."
        )
        get_run_logger().info("Waits for a person to resume this run with a decision. %s", question)
        form = Approval.with_initial_data(description=question)
        answer = await pause(wait_for_input=form, timeout=round(timeout_s), key=f"approval-{take}")
        if answer.decision is Decision.GO_ON:
            return picture
        if answer.decision is Decision.STOP:
            raise NotApproved(f"The picture was not approved. It is kept at {picture.uri}; the video and its edit were not bought.")
        take += 1


@flow(name="image-to-video-edit", flow_run_name="image-to-video-edit {video.model}", persist_result=True, result_serializer="json")
async def image_to_video_edit(
    *,
    image: ImageStep = _IMAGE,
    video: VideoStep = _VIDEO,
    edit: EditStep = _EDIT,
    source_image: str | None = None,
    store: str | None = None,
    take: int = 1,
    deadline_s: float = 3600.0,
    budget: Budget | None = None,
    labels: dict[str, str] | None = None,
    wait: Wait = "process",
    approve_image: bool = False,
    approval_timeout_s: float = 86_400.0,
) -> Chain:
    """Make a picture, a video that stars it, and an edit of that video.

    Args:
        image: How the picture is made; left out of account when a picture is given.
        video: How the picture becomes a video.
        edit: How the video is changed.
        source_image: A picture to start from, as an http(s) URL, an fsspec URL or a path on the worker.
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        take: Another number makes another variation of the very same chain.
        deadline_s: How long each step may take, in seconds.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included. A step that would pass it is not bought.
        labels: What the jobs are called by in the journal and in `happyhorse spend`, such as a project.
        wait: Whether the steps are waited for in this process, or the run is suspended until the flow collect has kept what they made, and
            until a person has approved the picture. That needs a deployment.
        approve_image: Whether the run pauses after the picture until a person has looked at it, since the next steps cost more.
        approval_timeout_s: How long it waits for that person, in seconds; then it fails, and a retry goes on from the same picture.

    Returns:
        The picture, the video and the edited video.

    Raises:
        InvalidRequest: When any of the three steps cannot be sent as it is, or blocks or store are not as they should be.
        BudgetExceeded: When what is yet to be bought does not fit into what is left of the budget; nothing was sent.
        NotApproved: When a person stopped the run after the picture.
    """
    payers = [step.credentials for step in (image, video, edit)[source_image is not None :]]
    await check_ready(store, *payers, suspend=wait == "suspend")
    planned: list[tuple[str, GenerationRequest, str]] = [
        ("video", _request(ReferenceToVideo, video, references=[source_image or _TO_COME, *video.references]), video.credentials),
        ("edit", _request(VideoEdit, edit, video=_TO_COME), edit.credentials),
    ]
    if source_image is None:
        planned.insert(0, ("image", _request(TextToImage, image), image.credentials))
    await check_requests(planned, store, budget=budget, takes=[take] * len(planned), to_come=_TO_COME)
    place = await MediaStore.find(store)
    how: dict[str, Any] = {"wait": wait, "take": take, "deadline_s": deadline_s, "budget": budget, "labels": labels}
    picture: MediaAsset | str
    if source_image is not None:
        picture = source_image
    elif approve_image:
        picture = await _approved(image, place, timeout_s=approval_timeout_s, **how)
    else:
        picture = await _made(_request(TextToImage, image), image.credentials, place, **how)
    ride = _request(ReferenceToVideo, video, references=[picture, *video.references])
    film = await _made(ride, video.credentials, place, **how)
    final = await _made(_request(VideoEdit, edit, video=film), edit.credentials, place, **how)
    shown = [("video", film), ("edit", final)]
    if isinstance(picture, MediaAsset):
        shown.insert(0, ("image", picture))
    await show_gallery(shown, store=place.to_store(), title="image to video edit")
    return Chain(image=picture, video=film, edit=final)


if __name__ == "__main__":
    chain = asyncio.run(image_to_video_edit())
    for name, asset in (("image", chain.image), ("video", chain.video), ("edit", chain.edit)):
        print(f"{name:6} {asset if isinstance(asset, str) else asset.uri}")
