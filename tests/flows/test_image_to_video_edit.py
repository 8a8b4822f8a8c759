"""The chain runs in every way that its routes allow, buys each step once, and refuses early what cannot run."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from prefect_happyhorse import InvalidRequest, MediaAsset, routes
from prefect_happyhorse.catalog import Route
from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def chain() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('image_to_video_edit')}:image_to_video_edit")


def of(gateway: str, capability: str) -> list[Route]:
    return [route for route in routes(gateway) if route.capability == capability]


def step(route: Route) -> dict[str, Any]:
    """A step on a route, with what the route demands; three seconds, so that every edit takes the video."""
    given: dict[str, Any] = {"credentials": route.gateway, "model": route.model}
    for field in route.fields:
        for name in field.source:
            if name == "duration" and route.capability != "video_edit":
                given[name] = 3
            elif field.required and name in {"duration", "resolution", "aspect_ratio"}:
                given[name] = {"duration": 3, "resolution": "720p", "aspect_ratio": "16:9"}[name]
    return given


def made(asset: MediaAsset) -> int:
    return Path(asset.uri.removeprefix("file://")).stat().st_size


IMAGES, VIDEOS, EDITS = (of("happyhorse", name) for name in ("text_to_image", "reference_to_video", "video_edit"))
WAYS = [(image or IMAGES[0], video or VIDEOS[0], edit or EDITS[0]) for image, video, edit in zip_longest(IMAGES, VIDEOS, EDITS)]


@pytest.mark.parametrize(("image", "video", "edit"), WAYS, ids=lambda route: route.model)
async def test_every_model_has_its_place_in_the_chain(
    sandbox_env: SandboxServer, chain: Flow[Any, Any], image: Route, video: Route, edit: Route
) -> None:
    """Three files, three charges, and the sandbox could read every input; a second run adds none."""
    sandbox_env.settings(check_inputs="submit", media="full")
    steps = {"image": step(image), "video": step(video), "edit": step(edit)}
    result = await chain(**steps)
    assert all(made(asset) == asset.bytes for asset in (result.image, result.video, result.edit))
    assert [entry.model for entry in sandbox_env.ledger()] == [image.model, video.model, edit.model]
    assert await chain(**steps) == result
    assert len(sandbox_env.ledger()) == 3


@pytest.mark.parametrize(
    "video", [of(gateway, "reference_to_video")[0] for gateway in ("ttapi", "uniall", "chanjing", "infiflow")], ids=lambda r: r.gateway
)
async def test_the_video_may_come_from_any_gateway(sandbox_env: SandboxServer, chain: Flow[Any, Any], video: Route) -> None:
    """The picture of one gateway feeds the video of another, and a third edits it."""
    sandbox_env.settings(check_inputs="submit", media="full")
    edit = of("uniall", "video_edit")[0]
    result = await chain(image=step(IMAGES[0]), video=step(video), edit=step(edit))
    assert [entry.gateway for entry in sandbox_env.ledger()] == ["happyhorse", video.gateway, "uniall"]
    assert result.edit.kind == "video"


async def test_a_given_picture_takes_the_place_of_the_first_step(sandbox_env: SandboxServer, chain: Flow[Any, Any]) -> None:
    """Nothing is paid for a picture that is there already."""
    sandbox_env.settings(media="full")
    first = await chain(image=step(IMAGES[0]), video=step(VIDEOS[0]), edit=step(EDITS[-1]))
    again = await chain(source_image=first.image.url, video=step(VIDEOS[0]), edit=step(EDITS[-1]), take=2)
    assert again.image == first.image.url
    assert [entry.capability for entry in sandbox_env.ledger()][3:] == ["reference_to_video", "video_edit"] or len(
        sandbox_env.ledger()
    ) == 5


async def test_a_later_steps_problem_is_told_before_the_first_is_paid(sandbox_env: SandboxServer, chain: Flow[Any, Any]) -> None:
    """Problems of all three steps stand in one error, each with its step."""
    with pytest.raises(InvalidRequest) as caught:
        await chain(
            image={"options": {"sharpness": 9}}, video={"duration": 2, "seed": -1}, edit={"model": "no-such-model", "credentials": "uniall"}
        )
    told = str(caught.value)
    for expected in (
        "image: options.sharpness",
        "video: duration must be between 3 and 15 seconds (got 2)",
        "video: seed must be between 0 and 2147483647 (got -1)",
        "edit: uniall does not offer",
    ):
        assert expected in told
    assert sandbox_env.ledger() == []


def test_the_form_shows_every_parameter(chain: Flow[Any, Any]) -> None:
    """Every model, prompt and option is typed and described, so that the Prefect UI can show a form."""
    schema = parameter_schema(chain)
    assert {"image", "video", "edit", "source_image", "store", "take"} <= set(schema.properties)
    for name in ("ImageStep", "VideoStep", "EditStep"):
        fields = schema.definitions[name]["properties"]
        assert {"credentials", "model", "prompt", "resolution", "aspect_ratio", "seed", "options"} <= set(fields)
        assert all("description" in field for field in fields.values())
