"""A film from a script: for each shot a picture, a video that stars it, perhaps its continuation; all concatenated in the script's order.

Run it with `python flows/story.py SCRIPT.toml`, or deploy it to a work pool. docs/flows.md says what a script looks like.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any, BinaryIO, Literal, cast

import anyio
import fsspec  # pyright: ignore[reportMissingTypeStubs] -- fsspec ships no types
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from prefect_happyhorse import (
    Budget,
    ConcatFailed,
    Gallery,
    InvalidRequest,
    ItemsFailed,
    Job,
    MediaAsset,
    MediaStore,
    check_ready,
    check_requests,
    concat,
    gather_limited,
    generate,
    parse_request,
    still_open,
    submit,
    suspend_until_done,
    validation_problems,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Wait = Literal["process", "suspend"]

_TO_COME = "https://example.com/to-come"


class Step(BaseModel):
    """What all shots have in common at one step; what is not named here goes into the request as it is, for example `resolution`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str = Field(description="The model.")
    credentials: str = Field(
        default="happyhorse", description="Name of a GatewayCredentials block, or a gateway whose key is in the environment."
    )


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


class Shot(BaseModel, extra="forbid", frozen=True):
    """One shot of the script."""

    name: str = Field(min_length=1, description="What the shot is called; each name stands once.")
    image: str | None = Field(default=None, description="Prompt of the picture.")
    source_image: str | None = Field(default=None, description="A picture in place of one that is made: http(s) URL, fsspec URL or path.")
    video: str = Field(description="Prompt of the video that stars the picture.")
    extension: str | None = Field(default=None, description="Prompt of its continuation.")
    take: int = Field(default=1, description="Another number makes another variation of this shot.")


class Script(BaseModel, extra="forbid", frozen=True):
    """A film, shot by shot."""

    title: str = Field(min_length=1)
    image: Step | None = None
    video: VideoStep
    extension: ExtensionStep | None = None
    shots: tuple[Shot, ...] = Field(min_length=1, alias="shot")


class Story(BaseModel, frozen=True):
    """What became of a script."""

    film: MediaAsset
    shots: dict[str, list[MediaAsset]] = Field(description="For each shot what was made for it, in order.")


class ShotsFailed(ItemsFailed):
    """Raised at the end of a story of which a shot failed or cannot be concatenated: what was made is kept and not paid for again."""


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
        problems = validation_problems(error)
    except ValueError as error:
        problems = (str(error),)
    raise InvalidRequest("The script cannot be read. Nothing was sent.", problems=problems)


def _steps_of(script: Script, shot: Shot) -> list[tuple[str, Step | None, dict[str, Any]]]:
    """The steps of a shot: its name, how it is made, and its request's fields, in which `_TO_COME` stands for what is yet to be made."""
    steps: list[tuple[str, Step | None, dict[str, Any]]] = []
    if shot.image is not None:
        steps.append(("image", script.image, {"capability": "text_to_image", "prompt": shot.image}))
    stars = script.video.starring(shot.source_image or _TO_COME)
    steps.append(("video", script.video, {"capability": script.video.capability, "prompt": shot.video, **stars}))
    if shot.extension is not None:
        steps.append(("extension", script.extension, {"capability": "video_extension", "prompt": shot.extension, "clip": _TO_COME}))
    return [(what, step, {"model": step.model, **(step.model_extra or {}), **own} if step else own) for what, step, own in steps]


def _plan(script: Script) -> tuple[list[tuple[str, dict[str, Any], str]], list[str]]:
    """Every shot's steps, to be checked before the first is paid for, and what is wrong with the script itself."""
    planned: list[tuple[str, dict[str, Any], str]] = []
    names = [shot.name for shot in script.shots]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems = [f"shot {name!r}: each shot must have a name of its own (got it {names.count(name)} times)" for name in twice]
    for shot in script.shots:
        if (shot.image is None) == (shot.source_image is None):
            problems.append(f"shot {shot.name!r}: must have either image or source_image")
        for what, step, fields in _steps_of(script, shot):
            if step is None:
                problems.append(f"shot {shot.name!r}, {what}: the script has no [{what}]")
            else:
                planned.append((f"shot {shot.name!r}, {what}", fields, step.credentials))
    return planned, problems


async def _make_shot(
    script: Script, shot: Shot, store: MediaStore, gallery: Gallery, *, wait: Wait, deadline_s: float, **paid: Any
) -> list[MediaAsset] | Job:
    """What is made for a shot: its picture, its video, its continuation; or the job that it waits for, where the run is to be suspended."""
    made: list[MediaAsset] = []
    for what, step, fields in _steps_of(script, shot):
        if step is None:
            raise ValueError(f"the script has no [{what}]")
        if what == "video" and made:
            fields.update(script.video.starring(made[-1]))
        if what == "extension":
            fields["clip"] = made[-1]
        request = parse_request(fields)
        if wait == "suspend":
            job = await submit(request, step.credentials, store, take=shot.take, **paid)
            if await still_open([job], store):
                return job
        made.append(await generate(request, step.credentials, store, take=shot.take, deadline_s=deadline_s, **paid))
        # Shown at once: a picture whose video fails is paid for, and perhaps tells why.
        place = 10 * script.shots.index(shot) + len(made)
        await gallery.add(f"{shot.name}, {fields['capability']}", made[-1], place=place)
    return made


def _on_screen(script: Script, made: list[MediaAsset]) -> list[MediaAsset]:
    """Which of a shot's videos the film shows."""
    videos = [asset for asset in made if asset.kind == "video"]
    return videos[-1:] if script.extension is not None and script.extension.holds_the_clip else videos


async def _concatenated(script: Script, shots: dict[str, list[MediaAsset]], store: MediaStore) -> MediaAsset:
    """The film of all shots; a video that cannot be read is named by its shot."""
    parts = [(name, video) for name, made in shots.items() for video in _on_screen(script, made)]
    try:
        return await concat([video for _, video in parts], store, title=script.title)
    except ConcatFailed as error:
        name, video = parts[error.position]
        step = video.job.capability if video.job else video.kind
        told = f"Every shot was made, but shot {name!r} cannot be joined: its {step} at {video.uri}: {error.reason}"
        raise ShotsFailed(f"{told}\nWhat was made is kept and paid for. Another `take` of that shot buys it again.") from error


def _load(path: str) -> str:
    with cast("BinaryIO", fsspec.open(path, "rb")) as file:  # pyright: ignore[reportUnknownMemberType]
        return file.read().decode("utf-8")


@flow(name="story", flow_run_name="story {script}", persist_result=True, result_serializer="json")
async def story(
    script: str,
    store: str | None = None,
    concurrency: PositiveInt = 4,
    deadline_s: float = 3600.0,
    budget: Budget | None = None,
    *,
    labels: dict[str, str] | None = None,
    wait: Wait = "process",
) -> Story:
    """Make a film from a script: shots side by side, concatenated in their order.

    Args:
        script: Where the script lies: a path on the worker or an fsspec URL, ending in .json, or else TOML.
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        concurrency: How many shots are made at the same time.
        deadline_s: How long each step may take, in seconds.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included.
        labels: What the jobs are called by in the journal and in `happyhorse spend`, such as a project.
        wait: Whether the shots are waited for in this process, or the run is suspended until the flow collect has kept what they are at.
            That needs a deployment.

    Returns:
        The film and what was made for each shot.

    Raises:
        InvalidRequest: When the script, the blocks or the store are not as they should be; nothing was sent.
        BudgetExceeded: When what is yet to be bought does not fit into what is left of the budget; nothing was sent.
        ShotsFailed: At the end, when a shot failed or cannot be concatenated. Running again makes only what is missing.
    """
    written = read_script(await anyio.to_thread.run_sync(_load, script), is_json=script.lower().endswith(".json"))
    steps = (written.image, written.video, written.extension)
    await check_ready(store, *(step.credentials for step in steps if step is not None), concat=True, suspend=wait == "suspend")
    planned, problems = _plan(written)
    takes = [shot.take for shot in written.shots for _, step, _ in _steps_of(written, shot) if step is not None]
    await check_requests(planned, store, problems=problems, budget=budget, takes=takes, to_come=_TO_COME)
    place = await MediaStore.find(store)
    gallery = Gallery(store=place.to_store(), title=written.title)

    while True:
        ended = await gather_limited(
            lambda shot: _make_shot(written, shot, place, gallery, wait=wait, deadline_s=deadline_s, budget=budget, labels=labels),
            written.shots,
            limit=concurrency,
            name=lambda shot: f"Shot {shot.name}",
        )
        await gallery.show()
        if not (jobs := [one for one in ended if isinstance(one, Job)]):
            break
        # Returns only where all of them have ended just now.
        await suspend_until_done(jobs, place)
    shots = {shot.name: one for shot, one in zip(written.shots, ended, strict=True)}
    made = {name: one for name, one in shots.items() if isinstance(one, list)}
    failed = {name: f"{type(one).__name__}: {one}" for name, one in shots.items() if isinstance(one, Exception)}
    if failed:
        summary = f"{len(failed)} of {len(shots)} shots failed, so there is no film yet"
        raise ShotsFailed(summary, failed, "Run it again to make what is missing.")
    return Story(film=await _concatenated(written, made, place), shots=made)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a film from a script.")
    parser.add_argument("script", help="TOML or JSON")
    parser.add_argument("--concurrency", type=int, default=4)
    arguments = parser.parse_args()
    print(asyncio.run(story(arguments.script, concurrency=arguments.concurrency)).film.uri)
