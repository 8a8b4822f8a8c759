"""A batch: a failed row never stops the others, and running it again makes only what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow, load_flow_from_entrypoint

from prefect_happyhorse import BudgetExceeded, InvalidRequest, generate_many
from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def batch() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('batch')}:batch")


def rows_of(result: Any) -> list[Any]:
    return list(result.read())


def row(prompt: str, **more: object) -> str:
    return json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": prompt, **more})


async def test_a_failed_row_stops_nothing_and_is_told_by_its_line(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path
) -> None:
    """Of five lines two are no request and one fails at the provider; the other two are kept, and a table says so."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text("\n".join([row("one"), "{not json", row("three", n=0), "", row("five"), row("six", colour="red")]))
    state = await batch(str(manifest), bad_rows="skip", return_state=True)
    assert state.is_failed()
    with pytest.raises(Exception, match="2 of 5 rows kept; 3 failed") as caught:
        await state.result()
    for told in ("row 2: JSONDecodeError", "n must be between 1 and 10 (got 0)", "row 6: ValidationError: request.text_to_image.colour"):
        assert told in str(caught.value)
    assert len(sandbox_env.ledger()) == 2
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        artifacts = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    (table,) = [json.loads(artifact.data) for artifact in artifacts if artifact.type == "table"]
    assert [(line["row"], line["state"]) for line in table] == [(2, "failed"), (3, "failed"), (6, "failed"), (1, "kept"), (5, "kept")]
    # Before what is long, or a browser's window ends first.
    assert list(table[0])[:6] == ["row", "state", "model", "seconds", "cost", "error"]
    assert all(line["file"].startswith("file://") for line in table if line["state"] == "kept")


async def test_every_bad_row_is_told_before_anything_is_bought(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """In one message with their numbers: what is no JSON, what is no request, what its route refuses, and who does not pay."""
    manifest = tmp_path / "shots.jsonl"
    lines = [
        row("one"),
        "{not json",
        row("three", n=0),
        row("four", colour="red"),
        row("five", credentials="nobody"),
        row("six", credentials="ttapi"),
    ]
    manifest.write_text("\n".join(lines))
    with pytest.raises(InvalidRequest) as caught:
        await batch(str(manifest))
    assert "5 of 6 rows cannot be made. Nothing was sent." in str(caught.value)
    for told in (
        "row 2: JSONDecodeError",
        "row 3: n must be between 1 and 10 (got 0)",
        "row 4: ValidationError: request.text_to_image.colour",
        "row 5: There is no GatewayCredentials block named 'nobody'",
        "row 6: ttapi does not offer text_to_image with model 'gpt-image-2'",
    ):
        assert told in str(caught.value)
    assert sandbox_env.ledger() == []


async def test_shards_are_task_runs_of_their_own(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """Each with its rows, its progress and its gallery; a shard whose run fails as a whole stops no other."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text("\n".join(row(f"shot {number}") for number in range(5)))
    state = await batch(str(manifest), shard_rows=2, concurrency=4, return_state=True)
    result = await state.result()
    assert (result.rows, result.states, len(result.files)) == (5, {"kept": 5}, 3)
    assert [one.row for one in rows_of(result)] == [1, 2, 3, 4, 5]
    async with get_client() as client:
        runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id])))
        found = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        artifacts = await client.read_artifacts(artifact_filter=found)
    assert sorted(run.name for run in runs) == [
        "generate 1 requests, batch, rows 5 to 5",
        "generate 2 requests, batch, rows 1 to 2",
        "generate 2 requests, batch, rows 3 to 4",
    ]
    assert sorted(artifact.type for artifact in artifacts if artifact.type) == ["markdown"] * 4 + ["progress"] * 3 + ["table"]


async def test_what_may_run_at_once_is_shared_out(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among two task runs, or as many as have so many rows; a single one has all of it."""
    shares: list[int] = []
    submit = generate_many.submit
    monkeypatch.setattr(generate_many, "submit", lambda *args, **how: shares.append(how["concurrency"]) or submit(*args, **how))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text("\n".join([row("one"), row("two")]))
    for shard_rows, concurrency, shared in ((1, 1, {1}), (1, 500, {250}), (1, 5, {3, 2}), (1000, 500, {500}), (2, 7, {7})):
        await batch(str(manifest), shard_rows=shard_rows, concurrency=concurrency)
        assert set(shares) == shared
        shares.clear()


async def test_running_again_buys_only_what_is_missing(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """The row that was refused is bought by the second run, and the rest not again; equal rows are one job."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text("\n".join([row("one"), row("two"), row("two")]))
    sandbox_env.fault(at="submit", kind="refuse", accept=False, times=1)
    first = rows_of(await batch(str(manifest), bad_rows="skip", fail_on_failed_rows=False))
    assert len([result for result in first if result.asset is None]) == 1
    second = rows_of(await batch(str(manifest)))
    assert len({result.asset.job.task_id for result in second}) == 2
    assert len(sandbox_env.ledger()) == 2


async def test_csv_says_the_same_as_json(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """Several media stand apart by |, options have columns, an empty cell is not set, and a row may name its credentials."""
    manifest = tmp_path / "shots.csv"
    manifest.write_text(
        "capability,model,prompt,references,duration,resolution,options.quality,credentials,take\n"
        'text_to_image,gpt-image-2-max,"A horse, white",,,,high,,\n'
        "reference_to_video,happyhorse-1.1-r2v,@2 follows @1,https://example.com/a.png|https://example.com/b.png,5,720P,,infiflow,7\n",
        encoding="utf-8-sig",
    )
    results = rows_of(await batch(str(manifest)))
    assert [(entry.gateway, entry.inputs) for entry in sorted(sandbox_env.ledger(), key=lambda entry: entry.gateway)] == [
        ("happyhorse", 0),
        ("infiflow", 2),
    ]
    assert [result.row for result in results] == [2, 3]


async def test_no_more_jobs_run_than_are_allowed(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """With two at a time, never three are open at the provider."""
    sandbox_env.settings(job_s=0.3)
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text("\n".join(row(f"shot {number}") for number in range(6)))
    await batch(str(manifest), concurrency=2)
    starts = sorted(entry.charged_at for entry in sandbox_env.ledger())
    # A job lasts 0.3 s at the provider, so a third one never starts within 0.3 s of the first of three.
    assert all(later - first >= 0.3 for first, later in zip(starts, starts[2:], strict=False))


async def test_a_budget_holds_over_runs(
    sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows fit into what an earlier run has left; the others are told, and are bought once there is room."""
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "gpt-image-2"\nper = "output"\namount = "0.25"\ncurrency = "CNY"\ndated = 2026-11-01\n')
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(prices))
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text("\n".join(row(f"shot {number}") for number in range(2)))
    await batch(str(manifest))
    manifest.write_text("\n".join(row(f"shot {number}") for number in range(8)))
    budget = {"amount": "1.00", "currency": "CNY"}
    with pytest.raises(BudgetExceeded, match=r"costs 1\.50 CNY, and 0\.50 CNY are left.*Nothing was sent") as caught:
        await batch(str(manifest), budget=budget)
    assert "6 yet to be bought for 1.50 CNY; 2 bought already" in str(caught.value)
    assert len(sandbox_env.ledger()) == 2
    results = rows_of(await batch(str(manifest), budget=budget, over_budget="skip", concurrency=1, fail_on_failed_rows=False))
    assert [result.state for result in results] == ["kept"] * 4 + ["failed"] * 4
    assert {(result.error or "").partition(":")[0] for result in results[4:]} == {"BudgetExceeded"}
    assert str(results[0].asset.estimate) == "0.25 CNY (1 at 0.25 CNY by your price list of 2026-11-01)"
    assert len(sandbox_env.ledger()) == 4
    await batch(str(manifest), budget={"amount": "2.00", "currency": "CNY"})
    assert len(sandbox_env.ledger()) == 8


async def test_a_batch_of_none_is_refused(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """Nought at a time would wait for ever."""
    with pytest.raises(ParameterTypeError, match="concurrency: Input should be greater than 0"):
        await batch(str(tmp_path / "none.jsonl"), concurrency=0)


async def test_a_row_that_no_parser_survives_is_one_failed_row(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """It is told by its number, and the others are made; a line ends where a line feed stands, and nowhere else."""
    manifest = tmp_path / "shots.jsonl"
    deep = '{"capability": "text_to_image", "model": "gpt-image-2", "prompt": ' + "[" * 5_000 + "]" * 5_000 + "}"
    long = row("x").replace('"x"', "9" * 5_000)
    odd = json.dumps(json.loads(row("A horse\u2028on a hill\x85 at dusk")), ensure_ascii=False)
    manifest.write_text("\r\n".join([row("A white horse"), deep, odd, long, ""]), encoding="utf-8", newline="")
    results = rows_of(await batch(str(manifest), bad_rows="skip", fail_on_failed_rows=False))
    assert [(result.row, result.state) for result in results] == [(1, "kept"), (2, "failed"), (3, "kept"), (4, "failed")]
    assert results[2].asset.job.prompt == "A horse\u2028on a hill\x85 at dusk"
    assert len(sandbox_env.ledger()) == 2


async def test_a_cell_that_no_parser_survives_is_text(sandbox_env: SandboxServer, batch: Flow[Any, Any], tmp_path: Path) -> None:
    """The row fails for what it is, by its number, and the others are made."""
    manifest = tmp_path / "shots.csv"
    manifest.write_text(
        "capability,model,prompt,options.quality\n"
        f"text_to_image,gpt-image-2,A horse,{'[' * 5_000}\n"
        "text_to_image,gpt-image-2,A white horse,\n",
        encoding="utf-8",
    )
    results = rows_of(await batch(str(manifest), bad_rows="skip", fail_on_failed_rows=False))
    assert [(result.row, result.state) for result in results] == [(2, "failed"), (3, "kept")]
