"""Many jobs in one task run: each keeps every promise of a job that is made alone, and a row that fails stops no other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact, TaskRun
from prefect.states import State

from prefect_happyhorse import (
    InvalidRequest,
    Money,
    Outlay,
    ReferenceToVideo,
    RowResult,
    TextToImage,
    collect_jobs,
    download_many,
    estimate_requests,
    generate_many,
    open_jobs,
    poll_many,
    submit_many,
)
from prefect_happyhorse.artifacts import gallery
from prefect_happyhorse.engine.jobs import prepare
from prefect_happyhorse.engine.jobs.results import StoredResult
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.runtime import concurrency
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


RIDE = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="A ride", references=["https://example.com/horse.png"])


def horses(count: int) -> list[TextToImage]:
    return [TextToImage(model="gpt-image-2", prompt=f"horse {number}") for number in range(count)]


async def artifacts_of(state: State[Any], kind: str) -> list[Artifact]:
    async with get_client() as client:
        run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    return [artifact for artifact in found if artifact.type == kind]


async def task_runs_of(state: State[Any]) -> list[TaskRun]:
    async with get_client() as client:
        run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        return await client.read_task_runs(flow_run_filter=run)


async def test_a_row_that_fails_stops_no_other_and_a_second_run_buys_what_is_missing(sandbox_env: SandboxServer) -> None:
    """In the order asked, with what each costs; the refused one is bought by the second run, and nothing else is."""
    sandbox_env.fault(at="submit", kind="refuse", accept=False, times=1)

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(horses(5), "happyhorse", concurrency=1)

    rows = await many()
    assert [row.state for row in rows] == ["failed", "kept", "kept", "kept", "kept"]
    assert [row.row for row in rows] == [1, 2, 3, 4, 5]
    assert [row.asset.job.prompt for row in rows if row.asset and row.asset.job] == [f"horse {number}" for number in range(1, 5)]
    assert rows[0].money is Money.NOT_SPENT
    assert rows[0].error is not None
    assert len(sandbox_env.ledger()) == 4
    assert [row.state for row in await many()] == ["kept"] * 5
    assert len(sandbox_env.ledger()) == 5


async def test_rows_come_as_they_end(sandbox_env: SandboxServer) -> None:
    """A refused one ends before those that are waited for, and each is told at once."""
    sandbox_env.settings(job_s=0.3)
    requests = [*horses(2), TextToImage(model="gpt-image-2", prompt="none", n=0)]
    told: list[int] = []

    async def tell(row: RowResult) -> None:
        told.append(row.row)

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(requests, "happyhorse", order="finished", on_row=tell)

    rows = await many()
    assert rows[0].row == 3
    assert sorted(told) == [1, 2, 3]
    assert [row.row for row in rows] == told


async def test_a_retry_of_the_run_makes_only_what_is_missing(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that failed once is tried again by Prefect, also where the requests came out of an iterator; nothing is bought twice."""
    keep = Session.store_outputs
    failures = [OSError("no space left on device")]

    async def fail_once(self: Session, result: Any) -> StoredResult:
        if result.job.prompt == "horse 1" and failures:
            raise failures.pop()
        return await keep(self, result)

    monkeypatch.setattr(Session, "store_outputs", fail_once)

    @flow
    async def many() -> list[RowResult]:
        patient = generate_many.with_options(retry_delay_seconds=0)
        return await patient((request for request in horses(3)), "happyhorse")

    state = await many(return_state=True)
    assert [row.state for row in await state.result()] == ["kept"] * 3
    (run,) = await task_runs_of(state)
    assert (run.name, run.run_count) == ("generate 3 requests", 2)
    assert len(sandbox_env.ledger()) == 3


async def test_what_is_kept_already_is_found_with_a_look_or_two(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row of it is submitted, polled or fetched again, and all are shown; of two that ask for the same each finds it."""
    looks: list[int] = []
    find = Session.find_kept

    async def counting(self: Session, digests: Collection[str]) -> dict[str, StoredResult]:
        looks.append(len(digests))
        return await find(self, digests)

    @flow
    async def many(requests: list[TextToImage]) -> list[RowResult]:
        return await generate_many(requests, "happyhorse", title="Found")

    made = await many(horses(12))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "find_kept", counting)
        for step in ("submit", "poll", "store_outputs"):
            patch.delattr(Session, step)
        state = await many(horses(12), return_state=True)
    assert await state.result() == made
    assert sum(looks) == 12
    assert len(looks) <= 2
    (page,) = await artifacts_of(state, "markdown")
    assert str(page.data).count("data:image/jpeg;base64,") == 12
    rows = await many([*horses(1), *horses(2)])
    assert [row.asset for row in rows] == [made[0].asset, made[0].asset, made[1].asset]
    assert len(sandbox_env.ledger()) == 12


async def test_what_was_bought_is_not_checked_again(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did fit its route when it was sent, and is there whatever the route takes by now; what is not bought must fit."""

    @flow
    async def many(requests: list[TextToImage]) -> tuple[list[RowResult], Outlay]:
        rows = await generate_many(requests, "happyhorse")
        return rows, await estimate_requests([(one, "happyhorse", 1) for one in requests])

    def refuse(*_: object, **__: object) -> None:
        raise InvalidRequest("There are no horses any more.")

    (made,), _ = await many(horses(1))
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "check", refuse)
        rows, outlay = await many(horses(1))
        assert (rows[0].asset, outlay.bought) == (made.asset, 1)
        with pytest.raises(InvalidRequest, match="no horses any more"):
            await many(horses(2))
    assert len(sandbox_env.ledger()) == 1


async def test_a_kept_file_that_is_gone_is_fetched_again(sandbox_env: SandboxServer) -> None:
    """The journal says that it is kept, and the store that it is not: the others are found, and nothing is bought."""

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(horses(3), "happyhorse")

    files = [row.asset.path for row in await many() if row.asset]
    assert files[1] is not None
    files[1].unlink()
    assert [row.state for row in await many()] == ["kept"] * 3
    assert files[1].is_file()
    assert len(sandbox_env.ledger()) == 3


async def test_a_store_that_fails_while_it_is_looked_through_is_told_by_each_row(
    sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be found together is looked for row by row, and nothing is bought twice."""

    async def down(self: Session, digests: Collection[str]) -> dict[str, StoredResult]:
        raise OSError("the store is down")

    monkeypatch.setattr(Session, "find_kept", down)

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(horses(2), "happyhorse")

    assert [row.state for row in [*await many(), *await many()]] == ["kept"] * 4
    assert len(sandbox_env.ledger()) == 2


async def test_rows_that_begin_together_ask_once_who_pays_and_what_the_limits_are(
    sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows there are, the server is asked for one block and each limit once or twice."""
    asked: Counter[str] = Counter()

    def counted(kind: type[Any], name: str) -> None:
        method = getattr(kind, name)

        async def count(self: Any, *args: Any, **how: Any) -> Any:
            asked[name] += 1
            return await method(self, *args, **how)

        monkeypatch.setattr(kind, name, count)

    monkeypatch.setattr(concurrency, "_SEEN", {})
    counted(PrefectClient, "read_block_document_by_name")
    counted(PrefectClient, "read_global_concurrency_limit_by_name")

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(horses(20), "happyhorse")

    assert [row.state for row in await many()] == ["kept"] * 20
    assert asked["read_block_document_by_name"] <= 2
    assert asked["read_global_concurrency_limit_by_name"] <= 4


async def test_what_still_fails_after_the_last_retry_is_a_row(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is completed, and the row says why, and that it was paid for."""

    async def fail(self: Session, result: Any) -> StoredResult:
        raise OSError("no space left on device")

    monkeypatch.setattr(Session, "store_outputs", fail)

    @flow
    async def many() -> list[RowResult]:
        return await generate_many.with_options(retries=1, retry_delay_seconds=0)(horses(1), "happyhorse")

    (row,) = await many()
    assert (row.state, row.error, row.money) == ("failed", "OSError: no space left on device", Money.SPENT)
    assert row.job is not None
    assert len(sandbox_env.ledger()) == 1


async def test_a_job_that_failed_before_is_no_uncertain_submit(sandbox_env: SandboxServer) -> None:
    """The row has its job, and what was only submitted is told without the cost of what is kept."""
    sandbox_env.fault(at="submit", kind="fail_job", times=1)

    @flow
    async def many() -> list[RowResult]:
        return await submit_many(horses(2), "happyhorse", concurrency=1)

    async def collecting() -> None:
        await collect_jobs(await open_jobs(), watch=True)

    first = await many()
    await flow(collecting)()
    state = await many(return_state=True)
    again = await state.result()
    assert [row.state for row in again] == ["failed", "submitted"]
    assert [row.job for row in again] == [row.job for row in first]
    (progress,) = await artifacts_of(state, "progress")
    assert progress.description == "submit many: 1 failed, 1 submitted of 2"
    assert len(sandbox_env.ledger()) == 2


async def test_the_three_steps_one_by_one(sandbox_env: SandboxServer) -> None:
    """Rows go from one to the next, those that failed as they are; jobs alone will do too."""
    sandbox_env.fault(at="submit", kind="refuse", accept=False, times=1)

    @flow
    async def many() -> tuple[list[RowResult], list[RowResult], list[RowResult], list[RowResult]]:
        submitted = await submit_many(horses(3), "happyhorse", concurrency=1)
        polled = await poll_many(submitted, "happyhorse")
        kept = await download_many(polled, "happyhorse")
        again = await download_many([row.result for row in polled if row.result], "happyhorse")
        return submitted, polled, kept, again

    submitted, polled, kept, again = await many()
    assert [row.state for row in submitted] == ["failed", "submitted", "submitted"]
    assert [row.state for row in polled] == ["failed", "succeeded", "succeeded"]
    assert [row.state for row in kept] == ["failed", "kept", "kept"]
    assert [row.asset for row in again] == [row.asset for row in kept[1:]]
    assert len(sandbox_env.ledger()) == 2


async def test_rows_may_be_paid_for_by_others(sandbox_env: SandboxServer) -> None:
    """Each by whom it names; one that names nobody who is known fails alone."""
    rows = [
        RowResult(row=1, id="a", request=horses(1)[0]),
        RowResult(row=2, id="b", request=RIDE, credentials="ttapi"),
        RowResult(row=3, id="c", request=horses(1)[0], credentials="nobody"),
        RowResult(row=4, id="d", request=horses(1)[0], take=2),
    ]

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(rows, "happyhorse")

    made = await many()
    assert [(row.id, row.state) for row in made] == [("a", "kept"), ("b", "kept"), ("c", "failed"), ("d", "kept")]
    assert "nobody" in (made[2].error or "")
    assert sorted(entry.gateway for entry in sandbox_env.ledger()) == ["happyhorse", "happyhorse", "ttapi"]


async def test_a_job_of_another_account_is_not_asked_for(sandbox_env: SandboxServer) -> None:
    """It fails by itself, and says whose it is."""

    @flow
    async def many() -> list[RowResult]:
        return await poll_many(await submit_many(horses(1), "happyhorse"), "ttapi")

    (row,) = await many()
    assert "belongs to account 'sandbox' of happyhorse" in (row.error or "")


async def test_wrong_arguments_are_all_told_before_anything_is_sent(sandbox_env: SandboxServer) -> None:
    """Also those that are among the items."""

    @flow
    async def many(items: Any, **arguments: Any) -> None:
        await generate_many(items, **arguments)

    with pytest.raises(InvalidRequest) as caught:
        await many([*horses(1), "a horse", 7], credentials="happyhorse")
    for told in ("item 2 must be a request, a job, a result or a row (got str)", "item 3 must be"):
        assert told in str(caught.value)
    twice = RowResult(row=1, id="a", request=horses(1)[0])
    with pytest.raises(InvalidRequest) as caught:
        await many([twice, twice], credentials=7, concurrency=0, order="sorted", budget=100)
    for told in (
        "credentials must be",
        "concurrency must be a whole number from 1 (got 0)",
        "order must be",
        "budget must be",
        "of its own",
    ):
        assert told in str(caught.value)
    assert sandbox_env.ledger() == []


async def test_a_run_is_shown_as_one(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task run, one progress, and pages of pictures on which each stands once, whatever the number of rows."""
    monkeypatch.setattr(gallery, "_PAGE_BYTES", 4_000)

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(horses(12), "happyhorse", title="Horses at dawn")

    state = await many(return_state=True)
    assert [run.name for run in await task_runs_of(state)] == ["generate 12 requests, Horses at dawn"]
    (progress,) = await artifacts_of(state, "progress")
    assert (progress.key, progress.data) == ("progress-horses-at-dawn", 100.0)
    assert progress.description == "Horses at dawn: 12 kept of 12; estimated cost of those kept: 12 of unknown price"
    pages = await artifacts_of(state, "markdown")
    assert len(pages) > 1
    assert {page.key for page in pages} >= {"gallery-horses-at-dawn", "gallery-horses-at-dawn-page-2"}
    for number in range(1, 13):
        assert sum(f" row {number} |" in str(page.data) for page in pages) == 1


async def test_sync_code_gets_rows(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """Of a direct call, and of one that the flow's task runner carries out with requests out of an iterator."""

    @flow
    def many() -> tuple[list[RowResult], list[RowResult]]:
        direct = generate_many(horses(2), "happyhorse", tmp_path)
        return direct, generate_many.submit(iter(horses(3)), "happyhorse", tmp_path).result()

    direct, mapped = many()
    assert [row.state for row in direct + mapped] == ["kept"] * 5
    assert len(sandbox_env.ledger()) == 3


async def test_rows_are_kept_as_json(sandbox_env: SandboxServer) -> None:
    """As Prefect writes them down for a run that goes on elsewhere."""

    @flow
    async def many() -> list[RowResult]:
        return await generate_many(horses(1), "happyhorse")

    (row,) = await many()
    assert RowResult.model_validate(json.loads(row.model_dump_json())) == row
