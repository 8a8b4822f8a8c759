"""The tasks, on a real Prefect server and against the sandbox."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId, TaskRunFilter
from prefect.states import State

from prefect_happyhorse import (
    GatewayCredentials,
    InvalidRequest,
    JobFailed,
    MediaAsset,
    MediaStore,
    ReferenceToVideo,
    SubmissionUncertain,
    TextToImage,
    download,
    generate,
    generate_sync,
    poll,
    submit,
)
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


def local(asset: MediaAsset) -> Path:
    return Path(asset.uri.removeprefix("file://"))


async def test_the_three_steps_one_by_one(sandbox_env: SandboxServer) -> None:
    """Submit gives a job, poll a result, download an asset whose bytes are there."""

    @flow
    async def steps() -> MediaAsset:
        job = await submit(HORSE, "happyhorse")
        return await download(await poll(job, "happyhorse"), "happyhorse")

    asset = await steps()
    assert local(asset).stat().st_size == asset.bytes
    assert (asset.kind, asset.job.model, asset.job.account, asset.job.prompt) == ("image", "gpt-image-2", "sandbox", "A white horse")
    assert len(sandbox_env.ledger()) == 1


async def test_generate_twice_is_charged_once_and_gives_the_same_asset(sandbox_env: SandboxServer) -> None:
    """A second flow run buys nothing, fetches nothing, and shows its own artifacts."""

    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse")

    assert await one() == await one()
    (charged,) = sandbox_env.ledger()
    assert charged.downloads == 1


async def test_an_asset_feeds_the_next_request(sandbox_env: SandboxServer) -> None:
    """The picture's address at the provider is what the next job reads."""
    sandbox_env.settings(check_inputs="submit", media="full")

    @flow
    async def chain() -> MediaAsset:
        horse = await generate(HORSE, "happyhorse")
        ride = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=(horse,), resolution="720p", duration=3)
        return await generate(ride, "infiflow")

    film = await chain()
    assert (film.kind, film.job.gateway) == ("video", "infiflow")
    assert film.duration_s is not None
    assert film.duration_s >= 2.9


def test_a_sync_flow_submits_and_maps(sandbox_env: SandboxServer) -> None:
    """.submit() and .map() work from a sync flow; a block is wrapped in unmapped, a name is not."""
    block = GatewayCredentials.from_environment("happyhorse")

    @flow
    def many() -> list[MediaAsset]:
        one = generate.submit(HORSE, block)
        some = generate.map([TextToImage(model="gpt-image-2", prompt=f"Horse {n}") for n in range(3)], "happyhorse")
        more = generate.map([TextToImage(model="gpt-image-2", prompt=f"Pony {n}") for n in range(2)], unmapped(block))
        return [one.result(), *some.result(), *more.result()]

    assets = many()
    assert len({asset.job.task_id for asset in assets}) == 6
    assert len(sandbox_env.ledger()) == 6


def test_a_sync_flow_calls_the_sync_twin(sandbox_env: SandboxServer) -> None:
    """generate_sync returns the asset itself, in a flow and without one."""

    @flow
    def one() -> MediaAsset:
        return generate_sync(HORSE, "happyhorse")

    assert local(one()).exists()
    assert len(sandbox_env.ledger()) == 1


async def _runs(state: State[Any]) -> tuple[list[Any], list[Any]]:
    async with get_client() as client:
        found = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))  # pyright: ignore[reportArgumentType]
        tasks = await client.read_task_runs(flow_run_filter=found, task_run_filter=TaskRunFilter())
        artifacts = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))  # pyright: ignore[reportArgumentType]
        )
    return tasks, artifacts


async def test_a_run_shows_names_tags_link_and_picture(sandbox_env: SandboxServer) -> None:
    """Readable run names, the tag, a link artifact, and a card with prompt, ids and an inline JPEG."""

    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse")

    state = await one(return_state=True)
    asset = await state.result()
    _, artifacts = await _runs(state)
    by_key = {artifact.key.partition("-")[0]: artifact for artifact in artifacts}
    assert asset.uri in by_key["link"].data
    card = by_key["card"].data
    for expected in ("data:image/jpeg;base64,", "A white horse", asset.job.task_id.replace("_", "\\_"), asset.sha256, "gpt-image-2"):
        assert expected in card


async def test_a_wrong_request_fails_at_once_and_is_not_retried(sandbox_env: SandboxServer) -> None:
    """All problems stand in one error; nothing was sent and Prefect tries nothing again."""
    wrong = TextToImage(model="gpt-image-2", prompt="A horse", n=0, options={"sharpness": 3})

    @flow
    async def one() -> MediaAsset:
        return await generate(wrong, "happyhorse")

    with pytest.raises(InvalidRequest) as caught:
        await one()
    assert len(caught.value.problems) == 2
    assert sandbox_env.ledger() == []


async def test_an_uncertain_submit_is_never_retried(sandbox_env: SandboxServer) -> None:
    """Prefect's task retries leave SubmissionUncertain alone: one request, one charge."""
    sandbox_env.fault(at="submit", kind="drop_after", times=None)

    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse")

    with pytest.raises(SubmissionUncertain):
        await one()
    assert sandbox_env.faults()[0]["struck"] == 1
    assert len(sandbox_env.ledger()) == 1


class _Everything(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def everything() -> Iterator[_Everything]:
    handler = _Everything()
    loggers = [logging.getLogger(name) for name in ("", "prefect", "prefect.task_runs", "prefect.flow_runs", "httpx", "httpcore")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield handler
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_what_cannot_be_shown_is_kept_all_the_same(
    sandbox_env: SandboxServer, everything: _Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact or event that the server will not take costs a warning, never the run: the job is paid for."""
    sandbox_env.settings(job_s=0.5)

    async def refuse(**facts: object) -> None:
        raise RuntimeError("the server says no")

    def refuse_event(**facts: object) -> None:
        raise RuntimeError("the feed says no")

    for name in ("cards.acreate_link_artifact", "cards.acreate_markdown_artifact", "progress.acreate_progress_artifact"):
        monkeypatch.setattr(f"prefect_happyhorse.artifacts.{name}", refuse)
    monkeypatch.setattr("prefect_happyhorse.runtime.events.emit_event", refuse_event)

    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse")

    asset = await one()
    assert local(asset).exists()
    told = "\n".join(everything.lines)
    assert "could not be shown" in told
    assert "could not be emitted" in told


async def test_a_job_of_another_account_is_refused(sandbox_env: SandboxServer) -> None:
    """Credentials that do not fit the job are told before the gateway is asked."""

    @flow
    async def mixed() -> object:
        job = await submit(HORSE, "happyhorse")
        return await poll(job, "ttapi")

    with pytest.raises(ValueError, match="belongs to account"):
        await mixed()


async def test_the_key_is_found_nowhere(sandbox_env: SandboxServer, everything: _Everything, tmp_path: Path) -> None:
    """Logs, artifacts, task runs, results, journal, files and exceptions of good and bad runs are searched for it."""
    block = GatewayCredentials.from_environment("happyhorse")
    results = tmp_path / "results"

    @flow(persist_result=True, result_serializer="json")
    async def one(request: TextToImage, credentials: GatewayCredentials) -> MediaAsset:
        return await generate(request, credentials)

    state = await one(HORSE, block, return_state=True)
    sandbox_env.fault(at="submit", kind="unauthorized", times=1)
    refused = await one(HORSE.model_copy(update={"prompt": "Another"}), block, return_state=True)
    sandbox_env.fault(at="poll", kind="fail_job", times=1)
    failed = await one(HORSE.model_copy(update={"prompt": "A third"}), block, return_state=True)
    assert refused.is_failed()
    with pytest.raises(JobFailed) as caught:
        await failed.result()
    texts = ["\n".join(everything.lines), repr(pickle.dumps(caught.value)), str(caught.value)]
    for ended in (state, refused, failed):
        tasks, artifacts = await _runs(ended)
        texts += [one.model_dump_json() for one in tasks] + [one.model_dump_json() for one in artifacts]
        async with get_client() as client:
            run = await client.read_flow_run(ended.state_details.flow_run_id)  # pyright: ignore[reportArgumentType]
        texts.append(run.model_dump_json())
    for folder in (tmp_path, results):
        texts += [file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()]
    assert not any("sesame" in text for text in texts)
    assert any("A white horse" in text for text in texts)


async def test_a_store_may_be_any_that_fsspec_knows(sandbox_env: SandboxServer) -> None:
    """The same flow keeps its file in memory."""

    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse", MediaStore(url="memory://shelf"))

    asset = await one()
    assert asset.uri.startswith("memory://shelf/")


async def test_the_journal_reads_like_a_book(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """One JSON file per request, with the request, the job and the asset in it."""

    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse")

    asset = await one()
    digest = asset.job.digest
    (file,) = (tmp_path / "outputs" / "journal" / digest[:2]).iterdir()
    assert file.name.partition(".")[0] == digest
    entry = json.loads(file.read_text())
    assert (entry["state"], entry["request"]["prompt"], entry["job"]["task_id"]) == ("kept", "A white horse", asset.job.task_id)
    beside = json.loads(local(asset).with_name(local(asset).name + ".json").read_text())
    assert (beside["sha256"], beside["job"]["task_id"]) == (asset.sha256, asset.job.task_id)
