"""Runs that wait without a process: who may, who is resumed by whom, and who is left alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Running, State, Suspended

from prefect_happyhorse import (
    InvalidRequest,
    Job,
    TextToImage,
    check_ready,
    collect_jobs,
    open_jobs,
    resume_runs,
    still_open,
    submit,
    suspend_until_done,
)
from prefect_happyhorse.sandbox import SandboxServer
from prefect_happyhorse.tasks import suspend

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Tasks are called outside of a flow here.
    pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted to send logs:UserWarning"),
]

HORSE = TextToImage(model="gpt-image-2", prompt="A patient horse")


@flow(name="patient")
async def patient() -> None:
    """Stands for a flow that is deployed."""


@pytest.fixture
async def client() -> AsyncIterator[PrefectClient]:
    async with get_client() as client:
        yield client


class Waiting:
    """Flow runs that wait for jobs, as they stand at the server and in the store."""

    def __init__(self, client: PrefectClient, folder: Path) -> None:
        self.client = client
        self.folder = folder

    async def run(self, state: State, *digests: str, key: str = "k1", server: str | None = None) -> FlowRun:
        flow_id = await self.client.create_flow(patient)
        deployment = await self.client.create_deployment(flow_id, f"patient-{uuid4().hex[:8]}")
        run = await self.client.create_flow_run_from_deployment(deployment)
        await self.client.set_flow_run_state(run.id, state, force=True)
        self.write(run.id, *digests, key=key, server=server)
        return run

    def write(self, run: object, *digests: str, key: str = "k1", server: str | None = None) -> None:
        now = datetime.now(timezone.utc).isoformat()
        wait = {"flow_run_id": str(run), "key": key, "server": server or str(self.client.api_url), "digests": digests, "since": now}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{run}.{key}.json").write_text(json.dumps(wait))

    async def state_of(self, run: FlowRun) -> str:
        state = (await self.client.read_flow_run(run.id)).state
        assert state is not None
        return state.name

    @property
    def files(self) -> int:
        return len(list(self.folder.iterdir()))


@pytest.fixture
def waiting(sandbox_env: SandboxServer, client: PrefectClient, tmp_path: Path) -> Waiting:
    return Waiting(client, tmp_path / "outputs" / "journal" / "waiting")


async def test_a_run_without_a_deployment_is_refused_before_anything_is_sent(sandbox_env: SandboxServer) -> None:
    """With every reason and the way out, be it asked for at the start or where it would be suspended."""

    @flow(persist_result=False)
    async def starts() -> None:
        await check_ready(None, "happyhorse", suspend=True)

    @flow(persist_result=False)
    async def waits() -> None:
        await suspend_until_done([])

    for run in (starts, waits):
        with pytest.raises(InvalidRequest) as caught:
            await run()
        for told in ("only the run of a deployment can be suspended", "deploy the flow", "@flow(persist_result=True)"):
            assert told in str(caught.value)
    with pytest.raises(InvalidRequest, match="only a flow run can be suspended"):
        await suspend_until_done([])
    assert sandbox_env.ledger() == []


async def test_a_suspended_run_says_what_it_waits_for(
    sandbox_env: SandboxServer, client: PrefectClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each job by its task id, among the run's artifacts, and who resumes it; Prefect's state has no room for it."""
    sandbox_env.settings(job_s=3600)
    monkeypatch.setattr(suspend, "suspension_problems", list)
    monkeypatch.setattr(suspend, "asuspend_flow_run", AsyncMock())

    @flow
    async def waits() -> None:
        await suspend_until_done([await submit(HORSE, "happyhorse")])

    with caplog.at_level("INFO"):
        state = await waits(return_state=True)
    told = "Suspended until one job has ended; the flow collect resumes the run."
    assert told in caplog.text
    run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    (shown,) = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    assert (shown.type, shown.key, shown.description) == ("table", "waits-for", told)
    assert [line["task id"] for line in json.loads(str(shown.data))] == [entry.task_id for entry in sandbox_env.ledger()]


async def test_a_run_is_resumed_once_all_its_jobs_have_ended(sandbox_env: SandboxServer, waiting: Waiting) -> None:
    """Not before; and never twice, however many look."""
    sandbox_env.settings(job_s=3600)
    jobs: list[Job] = [await submit(HORSE, "happyhorse", take=take) for take in (1, 2)]
    run = await waiting.run(Suspended(pause_key="k1"), *(job.digest for job in jobs))
    assert await still_open(jobs) == jobs
    assert await resume_runs() == 0
    assert await waiting.state_of(run) == "Suspended"
    sandbox_env.advance(3600)
    entries = await open_jobs()
    await collect_jobs(entries[:1])
    assert await resume_runs() == 0
    await collect_jobs(entries[1:])
    assert await still_open(jobs) == []
    assert await resume_runs() == 1
    assert await waiting.state_of(run) == "Resuming"
    assert (waiting.files, await resume_runs()) == (0, 0)
    assert len(sandbox_env.ledger()) == 2


async def test_a_run_that_is_not_suspended_by_this_wait_is_left_alone(waiting: Waiting) -> None:
    """One that waits for a person would fail without an answer; one that is about to be suspended is resumed the next time."""
    asks = await waiting.run(Suspended(pause_key="approval-1"), "d1")
    goes_on = await waiting.run(Running(), "d1")
    assert await resume_runs() == 0
    assert await waiting.state_of(asks) == "Suspended"
    assert [file.name for file in waiting.folder.iterdir()] == [f"{goes_on.id}.k1.json"]
    await waiting.client.set_flow_run_state(goes_on.id, Suspended(pause_key="k1"), force=True)
    assert (await resume_runs(), waiting.files) == (1, 0)


async def test_runs_that_have_ended_are_forgotten(waiting: Waiting) -> None:
    """Cancelled, or deleted at the server."""
    await waiting.run(Cancelled(), "d1")
    waiting.write(uuid4(), "d1")
    assert (await resume_runs(), waiting.files) == (0, 0)


async def test_a_run_whose_deployment_was_deleted_is_told_of(waiting: Waiting, caplog: pytest.LogCaptureFixture) -> None:
    """No worker would ever begin it anew."""
    run = await waiting.run(Suspended(pause_key="k1"), "d1")
    assert run.deployment_id is not None
    await waiting.client.delete_deployment(run.deployment_id)
    with caplog.at_level("ERROR"):
        assert (await resume_runs(), waiting.files) == (0, 0)
    assert await waiting.state_of(run) == "Suspended"
    assert f"{run.id} cannot go on, for its deployment was deleted" in caplog.text


async def test_what_is_not_ours_to_judge_stays(waiting: Waiting, caplog: pytest.LogCaptureFixture) -> None:
    """The run of another server, and a file that cannot be read, which is named; neither keeps another run from going on."""
    run = await waiting.run(Suspended(pause_key="k1"), "d1")
    waiting.write(uuid4(), "d1", server="https://prefect.example.com/api")
    (waiting.folder / "broken.json").write_text("{")
    with caplog.at_level("WARNING"):
        assert await resume_runs() == 1
    assert await waiting.state_of(run) == "Resuming"
    assert waiting.files == 2
    assert "broken.json cannot be read" in caplog.text
    assert "waits at https://prefect.example.com/api, and" in caplog.text


async def test_a_server_is_known_by_its_runs_and_not_by_its_address(waiting: Waiting) -> None:
    """A worker in a container and a collector beside it seldom say the same."""
    run = await waiting.run(Suspended(pause_key="k1"), "d1", server="http://prefect-server:4200/api")
    assert (await resume_runs(), waiting.files) == (1, 0)
    assert await waiting.state_of(run) == "Resuming"
