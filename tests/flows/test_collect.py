"""A batch is submitted now and collected later: nothing is bought by collecting, and nothing paid for is left behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow, load_flow_from_entrypoint

from prefect_happyhorse import GatewayCredentials, SubmissionUncertain, TextToImage, TextToVideo, open_jobs, submit
from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.engine.jobs import settle
from prefect_happyhorse.sandbox import SandboxServer

from .test_batch import row, rows_of

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def batch() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('batch')}:batch")


@pytest.fixture(scope="module")
def collect() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('collect')}:collect")


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "shots.jsonl"
    path.write_text("\n".join(row(f"shot {number}") for number in range(4)))
    return str(path)


async def test_a_batch_is_submitted_now_and_collected_later(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], collect: Flow[Any, Any], manifest: str
) -> None:
    """Submitting waits for no job; a pass leaves what still runs; a later one keeps it all; the batch itself then finds its files."""
    sandbox_env.settings(job_s=3600)
    submitted = rows_of(await batch(manifest, detach=True))
    assert [(result.state, result.asset) for result in submitted] == [("submitted", None)] * 4
    assert {outcome.state for outcome in await collect()} == {"running"}
    sandbox_env.advance(3600)
    kept = await collect()
    assert {(outcome.state, outcome.task_id) for outcome in kept} == {("kept", entry.task_id) for entry in sandbox_env.ledger()}
    assert all(Path(outcome.asset.uri.removeprefix("file://")).stat().st_size == outcome.asset.bytes for outcome in kept)
    assert await collect() == []
    assert {result.state for result in rows_of(await batch(manifest))} == {"kept"}
    assert [entry.downloads for entry in sandbox_env.ledger()] == [1] * 4


async def test_watching_waits_for_what_still_runs(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], collect: Flow[Any, Any], manifest: str
) -> None:
    """With `watch` a single run waits and ends with every file; what outlives the deadline stays open."""
    sandbox_env.settings(job_s=36_000)
    await batch(manifest, detach=True)
    assert {outcome.state for outcome in await collect(watch=True, deadline_s=0.1)} == {"running"}
    watching = asyncio.create_task(collect(watch=True))
    asked = [entry.polls for entry in sandbox_env.ledger()]
    while [entry.polls for entry in sandbox_env.ledger()] == asked:  # noqa: ASYNC110 -- the ledger is another thread's
        await asyncio.sleep(0.05)
    sandbox_env.advance(36_000)
    assert {outcome.state for outcome in await watching} == {"kept"}


async def test_what_ended_without_a_file_is_told(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], collect: Flow[Any, Any], manifest: str
) -> None:
    """One job failed and one submit is uncertain: the others are kept, the run fails and says which, and a table shows all."""
    sandbox_env.fault(at="submit", kind="drop_after", times=1)
    await batch(manifest, detach=True, fail_on_failed_rows=False)
    sandbox_env.fault(at="poll", kind="fail_job", times=1)
    state = await collect(return_state=True)
    with pytest.raises(Exception, match=r"2 of 4 open jobs kept, 0 still running; 2 need a look") as caught:
        await state.result()
    assert "happyhorse jobs show" in str(caught.value)
    assert "JobFailed" in str(caught.value)
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        artifacts = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    (table,) = [json.loads(artifact.data) for artifact in artifacts if artifact.type == "table"]
    assert sorted(line["state"] for line in table) == ["failed", "kept", "kept", "uncertain"]
    assert len(sandbox_env.ledger()) == 4
    again = await collect(fail_on_failed_jobs=False)
    assert [outcome.state for outcome in again] == ["uncertain"]


async def test_a_job_that_the_gateway_forgot_is_told_once(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], collect: Flow[Any, Any], manifest: str, tmp_path: Path
) -> None:
    """It is written down as expired, and no later pass asks for it again."""
    await batch(manifest, detach=True)
    sandbox_env.reset()
    for file in (tmp_path / "outputs" / "journal").glob("??/*.json"):
        entry = json.loads(file.read_text())
        if "job" in entry:
            # Older than the minute for which a gateway may not yet know a job that it has just accepted.
            entry["job"]["submitted_at"] = "2026-11-01T00:00:00Z"
            file.write_text(json.dumps(entry))
    outcomes = await collect(fail_on_failed_jobs=False)
    assert {(outcome.state, (outcome.error or "").partition(":")[0]) for outcome in outcomes} == {("failed", "JobExpired")}
    assert await collect() == []


async def test_jobs_are_collected_with_the_block_of_their_account(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], collect: Flow[Any, Any], manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block that a job was bought with is found by its name; another may be given; a wrong account is told and not asked."""
    block = GatewayCredentials(gateway="happyhorse", api_key="sesame-1234", base_url=sandbox_env.base_url("happyhorse"), account="film")
    await block.asave("collect-film", overwrite=True)
    await block.asave("collect-spare", overwrite=True)
    for name in ("HAPPYHORSE_API_KEY", "HAPPYHORSE_BASE_URL"):
        monkeypatch.delenv(name)
    await batch(manifest, credentials="collect-film", detach=True)
    await GatewayCredentials.adelete("collect-film")
    missing = await collect(fail_on_failed_jobs=False)
    assert {"no GatewayCredentials block named 'collect-film'" in (outcome.error or "") for outcome in missing} == {True}
    assert {outcome.state for outcome in await collect(credentials=["collect-spare"])} == {"kept"}


async def test_what_cannot_be_read_keeps_no_other_back(
    sandbox_env: SandboxServer,
    batch: Flow[Any, Any],
    collect: Flow[Any, Any],
    manifest: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is an error in the run's log, and every other job is kept."""
    await batch(manifest, detach=True)
    file = tmp_path / "outputs" / "journal" / "ee" / f"{'ee' * 32}.3.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("{")
    assert [outcome.state for outcome in await collect()] == ["kept"] * 4
    (told,) = [record.getMessage() for record in caplog.records if "may stand for a paid job" in record.getMessage()]
    assert f"{file} cannot be read" in told


async def test_what_nobody_knows_is_settled_where_it_can_be(
    sandbox_env: SandboxServer, collect: Flow[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the gateway's list of tasks: one is found and kept, one was not accepted, and of a gateway without a list a person is asked."""
    monkeypatch.setattr(settle, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(settle, "_APART_S", 0.02)
    monkeypatch.setattr(settle, "_NONE_FOR_S", 0.02)
    sandbox_env.settings(list_delay_s=0)
    words = ("eats", "runs", "walks", "sleeps")
    earlier, runs, walks, later = (TextToVideo(model="happyhorse-1.1-t2v", prompt=f"A horse {does}") for does in words)
    picture = TextToImage(model="gpt-image-2", prompt="A horse")

    @flow
    async def buy() -> None:
        await submit(earlier, "dashscope")
        for request, gateway, kind in (
            (runs, "dashscope", "drop_after"),
            (walks, "dashscope", "drop_before"),
            (picture, "happyhorse", "drop_after"),
        ):
            sandbox_env.fault(at="submit", kind=kind)
            with pytest.raises(SubmissionUncertain):
                await submit(request, gateway, on_uncertain="raise")
        await submit(later, "dashscope")

    await buy()
    outcomes = await collect(fail_on_failed_jobs=False)
    assert [(one.state, one.error and one.error.partition(":")[0]) for one in outcomes] == [
        ("kept", None),
        ("kept", None),
        ("failed", "the list of tasks of dashscope shows that this submit was not accepted"),
        ("uncertain", "nobody knows whether this submit was accepted"),
        ("kept", None),
    ]
    assert len(await open_jobs.fn()) == 1
    assert len(sandbox_env.ledger()) == 4


async def test_nobody_at_a_time_is_refused(sandbox_env: SandboxServer, collect: Flow[Any, Any]) -> None:
    """Nought at a time would wait for ever."""
    with pytest.raises(ParameterTypeError, match="concurrency: Input should be greater than 0"):
        await collect(concurrency=0)


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted to send logs:UserWarning")
async def test_what_is_due(sandbox_env: SandboxServer, collect: Flow[Any, Any]) -> None:
    """A job's at once, also where its submit was met as it was under way; an intent's when that is over; again only after a while."""
    await submit(TextToImage(model="gpt-image-2", prompt="A horse"), "happyhorse")
    (job,) = await open_jobs()
    intent = job.model_copy(update={"state": "intent", "job": None})
    now = 0.0
    schedule = collect.fn.__globals__["_Schedule"](lambda: now)
    assert schedule.due([intent]) == []
    now = 5.0
    assert schedule.due([intent]) == []
    assert schedule.due([job]) == [job]
    assert schedule.due([job]) == []
    schedule.end([job])
    now = 300.0
    assert schedule.due([job]) == []
    now = 306.0
    assert schedule.due([job]) == [job]
    other = intent.model_copy(update={"digest": "other"})
    assert schedule.due([job, other]) == []
    now = 600.0
    assert schedule.due([job, other]) == [other]
    # It got its job while it was looked after.
    assert schedule.due([other.model_copy(update={"state": "submitted", "job": job.job})]) == []
    uncertain = intent.model_copy(update={"state": "uncertain", "digest": "third"})
    assert schedule.due([uncertain]) == [uncertain]
