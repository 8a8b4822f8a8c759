"""One request over several models, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.flows import Flow, load_flow_from_entrypoint

from prefect_happyhorse import InvalidRequest
from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HORSE = {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A white horse"}


@pytest.fixture(scope="module")
def compare() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('compare')}:compare")


async def test_models_stand_side_by_side_with_time_and_cost(
    sandbox_env: SandboxServer, compare: Flow[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they were named, with what each costs; one that fails is shown as failed and stops no other."""
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "gpt-image-2"\nper = "output"\namount = "0.25"\ncurrency = "CNY"\ndated = 2026-11-01\n')
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(prices))
    sandbox_env.fault(at="poll", kind="fail_job", model="gpt-image-2-max")
    models = ["gemini-3.0-pro-image", "gpt-image-2-max", "gpt-image-2"]
    state = await compare(HORSE, [{"model": model} for model in models], return_state=True)
    results = await state.result()
    assert [result.candidate.model for result in results] == models
    assert [result.asset is None for result in results] == [False, True, False]
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        artifacts = {
            artifact.type: artifact.data for artifact in await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
        }
        gallery = next(
            artifact.data
            for artifact in await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
            if (artifact.key or "").startswith("gallery-compare")
        )
    lines = json.loads(artifacts["table"])
    assert [line["cost"].partition(" ")[0] for line in lines] == ["0.134", "", "0.25"]
    assert "JobFailed" in lines[1]["error"]
    assert gallery.index("gemini-3.0-pro-image") < gallery.index("job: 0.25 CNY")
    assert gallery.count("data:image/jpeg") == 2


async def test_a_comparison_of_failures_alone_is_failed(sandbox_env: SandboxServer, compare: Flow[Any, Any]) -> None:
    """The one error names each candidate with its reason, and the table stands there all the same."""
    sandbox_env.fault(at="poll", kind="fail_job", model="gpt-image-2-max", message="out of paint")
    sandbox_env.fault(at="submit", kind="refuse", accept=False, model="gpt-image-2")
    state = await compare(HORSE, [{"model": "gpt-image-2-max"}, {"model": "gpt-image-2"}], return_state=True)
    assert state.is_failed()
    wanted = r"(?s)All 2 candidates failed:\n  gpt-image-2-max with happyhorse: JobFailed.*\n  gpt-image-2 with happyhorse: InvalidRequest"
    with pytest.raises(Exception, match=wanted) as caught:
        await state.result()
    assert type(caught.value).__name__ == "ComparisonFailed"
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        artifacts = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    lines = json.loads(next(artifact.data for artifact in artifacts if artifact.type == "table"))
    assert ["JobFailed" in lines[0]["error"], "InvalidRequest" in lines[1]["error"]] == [True, True]


async def test_what_is_not_known_is_not_made_up(
    sandbox_env: SandboxServer, compare: Flow[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sizes cannot be told, as without the extra `media`, the table says so."""
    monkeypatch.setattr("prefect_happyhorse.engine.media.probe.can_measure", lambda kind: False)
    state = await compare(HORSE, [{"model": "gpt-image-2"}], return_state=True)
    (result,) = await state.result()
    assert (result.asset.width, result.asset.height) == (None, None)
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        artifacts = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    (line,) = json.loads(next(artifact.data for artifact in artifacts if artifact.type == "table"))
    assert line["size"] == "unknown"


async def test_gateways_may_be_compared_too(sandbox_env: SandboxServer, compare: Flow[Any, Any]) -> None:
    """The same model by two gateways is two charges."""
    ride = {
        "capability": "reference_to_video",
        "model": "happyhorse-1.0-r2v",
        "prompt": "It runs",
        "references": ["https://example.com/a.png"],
        "resolution": "720p",
        "duration": 3,
    }
    model = "happyhorse-1.0-r2v"
    results = await compare(ride, [{"model": model, "credentials": "infiflow"}, {"model": model, "credentials": "ttapi"}])
    assert [result.asset.job.gateway for result in results] == ["infiflow", "ttapi"]
    assert len(sandbox_env.ledger()) == 2


@pytest.mark.parametrize(
    ("candidates", "told"),
    [
        ([], "candidates must hold at least one"),
        ([{"model": "gpt-image-2"}, {"model": "gpt-image-2"}], "candidates must differ (got gpt-image-2 with happyhorse 2 times)"),
        ([{"model": "gpt-image-2"}, {"model": "no-such-model"}], "no-such-model with happyhorse"),
        ([{"model": "gpt-image-2"}, {"model": "gpt-image-2", "credentials": "ttapi"}], "with ttapi"),
    ],
)
async def test_what_cannot_be_compared_is_told_before_anything_is_sent(
    sandbox_env: SandboxServer, compare: Flow[Any, Any], candidates: list[dict[str, str]], told: str
) -> None:
    """Each candidate is checked before the first is paid for."""
    state = await compare(HORSE, candidates, return_state=True)
    with pytest.raises(InvalidRequest) as caught:
        await state.result()
    assert told in str(caught.value)
    assert sandbox_env.ledger() == []
