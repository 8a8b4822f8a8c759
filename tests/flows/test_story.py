"""A film from a script: every shot at its place, each step paid for once, and nothing sent of a script that cannot be made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import av
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow, load_flow_from_entrypoint

from prefect_happyhorse import BudgetExceeded, InvalidRequest, MediaAsset
from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.engine.media import film as film_module
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HEAD = """
title = "The crossing"
[image]
model = "gpt-image-2"
[video]
model = "happyhorse-1.0-r2v"
resolution = "720p"
duration = 3
"""


def shot(name: str, more: str = "") -> str:
    return f'\n[[shot]]\nname = "{name}"\nimage = "A picture of {name}"\nvideo = "{name} moves"\n{more}\n'


@pytest.fixture(scope="module")
def story() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('story')}:story")


@pytest.fixture
def drawn(sandbox_env: SandboxServer) -> SandboxServer:
    """A sandbox that draws what it was asked for, so that one shot can be told from another."""
    sandbox_env.settings(check_inputs="submit", media="full", long_side_px=512, fps=8)
    return sandbox_env


def script(folder: Path, text: str, name: str = "script.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def frames(asset: MediaAsset) -> list[bytes]:
    """What each frame shows, so small that a second coding does not change it much."""
    with av.open(asset.uri.removeprefix("file://")) as container:
        return [frame.to_image().resize((24, 16)).convert("RGB").tobytes() for frame in container.decode(video=0)]


def nearest(frame: bytes, candidates: dict[str, list[bytes]]) -> str:
    return min(candidates, key=lambda name: min(sum(abs(a - b) for a, b in zip(frame, one, strict=True)) for one in candidates[name]))


async def test_the_film_shows_the_shots_in_the_scripts_order(drawn: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """Each shot's picture is in its video, each video at its place in the film; a second run pays nothing and gives the same film."""
    text = HEAD + shot("alpha") + shot("beta") + shot("gamma")
    made = await story(script(tmp_path, text))
    assert list(made.shots) == ["alpha", "beta", "gamma"]
    assert [entry.inputs for entry in drawn.ledger() if entry.capability == "reference_to_video"] == [1, 1, 1]
    videos = {name: assets[-1] for name, assets in made.shots.items()}
    shown, parts = frames(made.film), {name: frames(video) for name, video in videos.items()}
    assert len(shown) == sum(len(part) for part in parts.values())
    third = len(shown) // 3
    assert [nearest(shown[third // 2 + number * third], parts) for number in range(3)] == ["alpha", "beta", "gamma"]
    assert made.film.duration_s == pytest.approx(sum(video.duration_s or 0 for video in videos.values()), abs=0.2)
    assert hashlib.sha256(Path(made.film.uri.removeprefix("file://")).read_bytes()).hexdigest() == made.film.sha256
    assert await story(script(tmp_path, text)) == made
    assert len(drawn.ledger()) == 6


async def test_another_order_is_another_film_of_the_same_shots(drawn: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """Nothing is bought for it."""
    first = await story(script(tmp_path, HEAD + shot("alpha") + shot("beta")))
    second = await story(script(tmp_path, HEAD + shot("beta") + shot("alpha")))
    assert first.film.uri != second.film.uri
    assert len(drawn.ledger()) == 4


async def test_a_shot_that_failed_stops_no_other(sandbox_env: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """The others are kept, the run says which failed and shows its picture, and there is no film; the next run buys what is missing."""
    sandbox_env.fault(at="submit", kind="refuse", accept=False, model="happyhorse-1.0-r2v", times=1)
    path = script(tmp_path, HEAD + shot("alpha") + shot("beta"))
    state = await story(path, concurrency=1, return_state=True)
    with pytest.raises(Exception, match=r"(?s)1 of 2 shots failed.*alpha: InvalidRequest"):
        await state.result()
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        artifacts = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    (drawn,) = [artifact.data for artifact in artifacts if (artifact.key or "").startswith("gallery-the-crossing")]
    gallery = drawn.replace("\\", "")
    shown = [gallery.find(head) for head in ("alpha, text_to_image", "beta, text_to_image", "beta, reference_to_video")]
    assert -1 not in shown
    assert shown == sorted(shown)
    assert gallery.count("data:image/jpeg") == 3
    assert "alpha, reference_to_video" not in gallery
    assert not (tmp_path / "outputs" / "films").exists()
    assert len(sandbox_env.ledger()) == 3
    made = await story(path)
    assert len(made.shots) == 2
    assert len(sandbox_env.ledger()) == 4


async def test_a_shot_may_go_on(drawn: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """Its continuation gets the video, and the film shows both, or the continuation alone where that holds the clip."""
    for holds in (False, True):
        head = (
            HEAD.replace("happyhorse-1.0-r2v", "wan2.7-r2v") + f'[extension]\nmodel = "wan2.7-i2v"\nholds_the_clip = {str(holds).lower()}\n'
        )
        made = await story(script(tmp_path, head + shot("alpha", 'extension = "alpha goes on"')))
        _, video, more = made.shots["alpha"]
        assert (video.job.capability, more.job.capability) == ("reference_to_video", "video_extension")
        expected = more.duration_s if holds else video.duration_s + more.duration_s
        assert made.film.duration_s == pytest.approx(expected, abs=0.3)
    assert [entry.inputs for entry in drawn.ledger()] == [0, 1, 1]


async def test_a_picture_may_be_the_first_frame(drawn: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """A script says by `capability` which of the two ways a picture becomes a video; the picture reaches the gateway either way."""
    head = HEAD.replace('model = "happyhorse-1.0-r2v"', 'capability = "image_to_video"\nmodel = "happyhorse-1.0-i2v"')
    made = await story(script(tmp_path, head + shot("alpha")))
    assert [asset.job.capability for asset in made.shots["alpha"]] == ["text_to_image", "image_to_video"]
    assert [(entry.capability, entry.inputs) for entry in drawn.ledger()] == [("text_to_image", 0), ("image_to_video", 1)]


async def test_a_shot_that_cannot_be_joined_is_named(
    sandbox_env: SandboxServer, story: Flow[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name and its file, not by a number; the next run pays nothing and joins."""
    real = film_module.concat_files

    def broken(files: list[Path], target: Path) -> bool:
        nothing = tmp_path / "nothing.mp4"
        nothing.write_bytes(b"no video at all")
        return real([files[0], nothing], target)

    path = script(tmp_path, HEAD + shot("alpha") + shot("beta"))
    with monkeypatch.context() as patched:
        patched.setattr(film_module, "concat_files", broken)
        state = await story(path, return_state=True)
    with pytest.raises(Exception, match=r"(?s)shot 'beta' cannot be joined: its reference_to_video at file://.*paid for") as caught:
        await state.result()
    assert type(caught.value).__name__ == "ShotsFailed"
    assert len(sandbox_env.ledger()) == 4
    assert list((await story(path)).shots) == ["alpha", "beta"]
    assert len(sandbox_env.ledger()) == 4


async def test_a_given_picture_is_not_paid_for(sandbox_env: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """A script in JSON, with a picture of one's own."""
    text = """{"title": "t", "video": {"model": "happyhorse-1.0-r2v", "resolution": "720p", "duration": 3},
        "shot": [{"name": "a", "source_image": "https://example.com/a.png", "video": "It moves"}]}"""
    made = await story(script(tmp_path, text, "script.json"))
    assert [asset.job.capability for asset in made.shots["a"]] == ["reference_to_video"]
    assert len(sandbox_env.ledger()) == 1


WRONG = {
    "no = [toml": "Invalid value",
    HEAD: "shot: Field required",
    HEAD + shot("a") + shot("a"): "shot 'a': each shot must have a name of its own (got it 2 times)",
    HEAD + shot("a", 'source_image = "b.png"'): "must have either image or source_image",
    HEAD + shot("a", 'extension = "on"'): "the script has no [extension]",
    HEAD.replace("duration = 3", "duration = 99") + shot("a"): "shot 'a', video: duration must be between 3 and 15 seconds (got 99)",
    HEAD.replace("duration = 3", 'colour = "red"') + shot("a"): "colour",
    HEAD.replace("gpt-image-2", "no-such-model") + shot("a"): "no-such-model",
    HEAD
    + shot("a")
    + '[[shot]]\nname = "b"\nsource_image = "/no/b.png"\nvideo = "On"\n': "shot 'b', video: references[0]='/no/b.png': there is no",
    HEAD.replace('model = "happyhorse', 'capability = "video_edit"\nmodel = "happyhorse') + shot("a"): "video.capability",
    HEAD.replace('model = "gpt-image-2"', 'model = "gpt-image-2"\ncredentials = "nobody"')
    + shot("a"): "no GatewayCredentials block named 'nobody'",
}


@pytest.mark.parametrize("number", range(len(WRONG)))
async def test_what_cannot_be_made_is_told_before_anything_is_sent(
    sandbox_env: SandboxServer, story: Flow[Any, Any], tmp_path: Path, number: int
) -> None:
    """With the shot, the step and what is allowed."""
    text, told = list(WRONG.items())[number]
    state = await story(script(tmp_path, text), return_state=True)
    with pytest.raises(InvalidRequest) as caught:
        await state.result()
    assert told in str(caught.value)
    assert sandbox_env.ledger() == []


async def test_nobody_at_a_time_is_refused(sandbox_env: SandboxServer, story: Flow[Any, Any], tmp_path: Path) -> None:
    """Nought at a time would wait for ever."""
    with pytest.raises(ParameterTypeError, match="concurrency: Input should be greater than 0"):
        await story(str(tmp_path / "none.toml"), concurrency=0)


async def test_what_is_made_already_needs_no_room_in_the_budget(
    sandbox_env: SandboxServer, story: Flow[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that does not fit is refused with the figure before its first shot; one that is made runs again though nothing is left."""
    prices = tmp_path / "prices.toml"
    row = '[[price]]\nmodel = "{}"\nper = "{}"\namount = "{}"\ncurrency = "CNY"\ndated = 2026-11-01\n'
    prices.write_text(row.format("gpt-image-2", "output", "0.25") + row.format("happyhorse-1.0-r2v", "second", "1"))
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(prices))
    written = script(tmp_path, HEAD + shot("a") + shot("b"))
    with pytest.raises(BudgetExceeded, match=r"4 yet to be bought for 6\.50 CNY; 0 bought already.*and 6 CNY are left"):
        await story(written, budget={"amount": "6", "currency": "CNY"})
    assert sandbox_env.ledger() == []
    for _ in range(2):
        await story(written, budget={"amount": "6.50", "currency": "CNY"})
        assert len(sandbox_env.ledger()) == 4
    more = script(tmp_path, HEAD + shot("a") + shot("b") + shot("c"))
    with pytest.raises(BudgetExceeded, match=r"2 yet to be bought for 3\.25 CNY; 4 bought already.*3\.25 CNY, and 0\.00 CNY are left"):
        await story(more, budget={"amount": "6.50", "currency": "CNY"})
