"""A film from a script: for each shot a picture, a video that stars it, perhaps its continuation; all joined in the script's order.

Run it with `python flows/story.py SCRIPT.toml`, or deploy it to a work pool. docs/flows.md says what a script looks like.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from typing import Any, BinaryIO, Literal, cast

import anyio
import fsspec  # pyright: ignore[reportMissingTypeStubs] -- fsspec ships no types
from prefect import flow, get_run_logger
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_happyhorse import (
    Budget,
    Gallery,
    GatewayCredentials,
    GenerationError,
    GenerationRequest,
    InvalidRequest,
    MediaAsset,
    MediaStore,
    check_ready,
    concat,
    generate,
    parse_request,
    resolve,
)
from prefect_happyhorse.catalog import find_problems
from prefect_happyhorse.engine.inputs.preflight import inspect_media
from prefect_happyhorse.engine.media.concat import ConcatFailed
from prefect_happyhorse.engine.media.film import check_can_concat
from prefect_happyhorse.engine.storage.store import Store

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TO_COME = "https://example.com/to-come"


class Step(BaseModel):
    """What all shots have in common at one step; what is not named here goes into the request as it is, for example `resolution`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str = Field(description="The model.")
    credentials: str = Field(
        default="happyhorse", description="Name of a GatewayCredentials block, or a gateway whose key is in the environment."
    )

    def request(self, capability: str, **given: object) -> GenerationRequest:
        """The request of one shot at this step.

        Args:
            capability: What is asked for.
            given: The shot's own fields.
        """
        return parse_request({"capability": capability, "model": self.model, **(self.model_extra or {}), **given})


class VideoStep(Step):
    """How a picture becomes a video."""

    capability: Literal["reference_to_video", "image_to_video"] = Field(
        default="reference_to_video", description="Whether the picture is a reference, or the video's first frame."
    )

    def starring(self, picture: MediaAsset | str) -> dict[str, Any]:
        """The field of the request that holds the picture.

        Args:
            picture: The picture.
        """
        return {"image": picture} if self.capability == "image_to_video" else {"references": [picture]}


class ExtensionStep(Step):
    """How a shot goes on."""

    holds_the_clip: bool = Field(
        description="Whether the result begins with the clip that it goes on from. The providers' documents do not say; look at one."
    )


class Shot(BaseModel):
    """One shot of the script."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="What the shot is called; each name stands once.")
    image: str | None = Field(default=None, description="Prompt of the picture.")
    source_image: str | None = Field(default=None, description="A picture in place of one that is made: http(s) URL, fsspec URL or path.")
    video: str = Field(description="Prompt of the video that stars the picture.")
    extension: str | None = Field(default=None, description="Prompt of its continuation.")
    take: int = Field(default=1, description="Another number makes another variation of this shot.")


class Script(BaseModel):
    """A film, shot by shot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    image: Step | None = None
    video: VideoStep
    extension: ExtensionStep | None = None
    shots: tuple[Shot, ...] = Field(min_length=1, alias="shot")


class Story(BaseModel):
    """What became of a script."""

    model_config = ConfigDict(frozen=True)

    film: MediaAsset
    shots: dict[str, list[MediaAsset]] = Field(description="For each shot what was made for it, in order.")


class ShotsFailed(RuntimeError):
    """Raised at the end of a story of which a shot failed or cannot be joined: what was made is kept and not paid for again."""


def read_script(text: str, *, is_json: bool) -> Script:
    """A script from its text.

    Args:
        text: TOML or JSON.
        is_json: Whether it is JSON.

    Raises:
        InvalidRequest: When it is none; every problem is named.
    """
    try:
        return Script.model_validate(json.loads(text) if is_json else tomllib.loads(text))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
    except ValueError as error:
        problems = [str(error)]
    raise InvalidRequest("The script cannot be read. Nothing was sent.", problems=tuple(problems))


def _steps_of(script: Script, shot: Shot) -> list[tuple[str, Step | None, str, dict[str, Any]]]:
    """The steps of a shot: its name, how it is made, its capability, and its own fields; media that are to come are left out."""
    steps: list[tuple[str, Step | None, str, dict[str, Any]]] = []
    if shot.image is not None:
        steps.append(("image", script.image, "text_to_image", {"prompt": shot.image}))
    stars = script.video.starring(shot.source_image or _TO_COME)
    steps.append(("video", script.video, script.video.capability, {"prompt": shot.video, **stars}))
    if shot.extension is not None:
        steps.append(("extension", script.extension, "video_extension", {"prompt": shot.extension, "clip": _TO_COME}))
    return steps


async def _refuse_early(script: Script, store: Store) -> None:
    """Check every shot's steps before the first is paid for; what a step is given by the one before cannot be checked yet."""
    problems: list[str] = []
    names = [shot.name for shot in script.shots]
    problems += [f"shot {name!r} stands there {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1]
    for shot in script.shots:
        if (shot.image is None) == (shot.source_image is None):
            problems.append(f"shot {shot.name!r}: either image or source_image is wanted")
        for what, step, capability, given in _steps_of(script, shot):
            where = f"shot {shot.name!r}, {what}"
            if step is None:
                problems.append(f"{where}: the script has no [{what}]")
            else:
                problems += [f"{where}: {problem}" for problem in await _problems_of(step, capability, given, store)]
    if problems:
        raise InvalidRequest("The story cannot be made as it is written. Nothing was sent.", problems=tuple(problems))


async def _problems_of(step: Step, capability: str, given: dict[str, Any], store: Store) -> list[str]:
    account = (await GatewayCredentials.find(step.credentials)).to_account()
    try:
        request = step.request(capability, **given)
        route = resolve(request, account.gateway)
        # A picture of one's own is there already, so it is looked at now and not when other shots are paid for.
        return [*find_problems(request, route), *(await inspect_media(request, route, store)).problems]
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
    except InvalidRequest as error:
        return [error.message, *error.problems]


async def _make_shot(
    script: Script, shot: Shot, store: MediaStore, deadline_s: float, budget: Budget | None
) -> AsyncGenerator[MediaAsset, None]:
    """What is made for a shot, each as soon as it is: its picture, its video, its continuation."""
    made: list[MediaAsset] = []
    for what, step, capability, given in _steps_of(script, shot):
        if step is None:
            raise ValueError(f"the script has no [{what}]")
        if what == "video" and made:
            given.update(script.video.starring(made[-1]))
        if what == "extension":
            given["clip"] = made[-1]
        request = step.request(capability, **given)
        made.append(await generate(request, step.credentials, store, take=shot.take, deadline_s=deadline_s, budget=budget))
        yield made[-1]


def _on_screen(script: Script, made: list[MediaAsset]) -> list[MediaAsset]:
    """Which of a shot's videos the film shows."""
    videos = [asset for asset in made if asset.kind == "video"]
    return videos[-1:] if script.extension is not None and script.extension.holds_the_clip else videos


async def _joined(script: Script, shots: dict[str, list[MediaAsset]], store: MediaStore) -> MediaAsset:
    """The film of all shots; a video that cannot be joined is told by its shot."""
    parts = [(name, video) for name, made in shots.items() for video in _on_screen(script, made)]
    try:
        return await concat([video for _, video in parts], store, title=script.title)
    except ConcatFailed as error:
        name, video = parts[error.position]
        step = video.job.capability if video.job else video.kind
        told = f"Every shot was made, but shot {name!r} cannot be joined: its {step} at {video.uri}: {error.reason}"
        raise ShotsFailed(f"{told}\nWhat was made is kept and paid for. Another `take` of that shot buys that shot anew.") from error


def _load(path: str) -> str:
    with cast("BinaryIO", fsspec.open(path, "rb")) as file:  # pyright: ignore[reportUnknownMemberType]
        return file.read().decode("utf-8")


@flow(name="story", flow_run_name="story {script}", persist_result=True, result_serializer="json")
async def story(
    script: str, store: str | None = None, concurrency: int = 4, deadline_s: float = 3600.0, budget: Budget | None = None
) -> Story:
    """Make a film from a script: shots side by side, joined in their order.

    Args:
        script: Where the script lies: a path on the worker or an fsspec URL, ending in .json, or else TOML.
        store: Name of a MediaStore block. Empty: HAPPYHORSE_STORE, else the folder outputs.
        concurrency: How many shots are made at the same time.
        deadline_s: How long each step may take, in seconds.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included.

    Returns:
        The film and what was made for each shot.

    Raises:
        InvalidRequest: When the script, the blocks or the store are not as they should be; nothing was sent.
        ShotsFailed: At the end, when a shot failed or cannot be joined. Running again makes only what is missing.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}: allowed is 1 or more")
    check_can_concat()
    written = read_script(await anyio.to_thread.run_sync(_load, script), is_json=script.lower().endswith(".json"))
    await check_ready(store, *(step.credentials for step in (written.image, written.video, written.extension) if step is not None))
    place = await MediaStore.find(store)
    await _refuse_early(written, place.to_store())
    gallery = Gallery(store=place.to_store(), title=written.title)
    slots = asyncio.Semaphore(concurrency)

    async def one(position: int, shot: Shot) -> list[MediaAsset] | str:
        made: list[MediaAsset] = []
        async with slots:
            try:
                async for asset in _make_shot(written, shot, place, deadline_s, budget):
                    # Shown at once: a picture whose video fails is paid for, and perhaps tells why.
                    await gallery.add(
                        f"{shot.name}, {asset.job.capability if asset.job else asset.kind}", asset, place=10 * position + len(made)
                    )
                    made.append(asset)
            except (GenerationError, ValueError, OSError) as error:
                get_run_logger().error("Shot %s: %s", shot.name, error)
                return f"{type(error).__name__}: {error}"
        return made

    ended = await asyncio.gather(*(one(position, shot) for position, shot in enumerate(written.shots)))
    await gallery.show()
    lost = [f"  {shot.name}: {what}" for shot, what in zip(written.shots, ended, strict=True) if isinstance(what, str)]
    if lost:
        told = "\n".join([f"{len(lost)} of {len(ended)} shots failed, so there is no film yet:", *lost])
        raise ShotsFailed(f"{told}\nRun it again to make what is missing.")
    shots = {shot.name: made for shot, made in zip(written.shots, ended, strict=True) if isinstance(made, list)}
    return Story(film=await _joined(written, shots, place), shots=shots)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a film from a script.")
    parser.add_argument("script", help="TOML or JSON")
    parser.add_argument("--concurrency", type=int, default=4)
    arguments = parser.parse_args()
    print(asyncio.run(story(arguments.script, concurrency=arguments.concurrency)).film.uri)
