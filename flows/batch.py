"""A manifest of requests, made by the thousand in a task run: a failed row stops no other, and it says how each ended.

Run it with `python flows/batch.py MANIFEST`, or deploy it to a work pool.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal, cast

import anyio
import anyio.from_thread
import anyio.to_thread
import fsspec  # pyright: ignore[reportMissingTypeStubs] -- fsspec ships no types
from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.utilities.annotations import quote
from pydantic import BaseModel, Field, PositiveInt

from prefect_happyhorse import (
    Budget,
    Estimate,
    GenerationError,
    ItemsFailed,
    Job,
    MediaStore,
    Outlay,
    RowResult,
    check_ready,
    generate_many,
    show_table,
    submit_many,
    suspend_until_done,
    total,
)
from prefect_happyhorse.datasets import BadRow, ManifestFormat, Row, check_manifest, read_manifest

_AGAIN = "Change what each of them says, and run it again: only what is missing is made, and nothing is bought twice."
_SHOWN = 1000
"""The most rows that the table of a run shows: the UI shows no more of them at once, however many there are."""


class BatchResult(BaseModel, frozen=True):
    """How the rows of a batch ended."""

    rows: int = Field(description="How many the manifest has.")
    states: dict[str, int] = Field(description="How many ended in each state.")
    cost: str = Field(description="What those that are kept should cost, as far as prices are known.")
    failed: dict[str, str] = Field(description="Why the first that failed did, by their ids.")
    files: list[str] = Field(description="Where it is written how each row ended, as JSON lines.")

    def read(self, **options: Any) -> Iterator[RowResult]:
        """How each row ended, shard by shard, in the order of the manifest.

        Args:
            options: What fsspec needs to open the files beside their addresses.
        """
        for file in self.files:
            with cast("BinaryIO", fsspec.open(file, "rb", **options)) as lines:  # pyright: ignore[reportUnknownMemberType]
                yield from map(RowResult.model_validate_json, lines)


class RowsFailed(ItemsFailed):
    """Raised at the end of a batch of which rows failed."""


class _Report:
    """Writes down how the rows of each shard ended, and counts them; what it holds does not grow with their number."""

    def __init__(self, store: MediaStore) -> None:
        self._store = store.to_store()
        self._states: Counter[str] = Counter()
        self._costs: Counter[Estimate | None] = Counter()
        self._failed: list[RowResult] = []
        self._others: list[RowResult] = []
        self._files: dict[int, str] = {}

    async def add(self, shard: int, rows: Sequence[RowResult]) -> None:
        path = f"batches/{flow_run.id or 'run'}/{shard:06}.jsonl"
        await self._store.write(path, "".join(f"{row.model_dump_json(exclude_none=True)}\n" for row in rows).encode())
        self._files[shard] = self._store.uri(path)
        self._states.update(row.state for row in rows)
        self._costs.update(row.asset.estimate for row in rows if row.asset is not None)
        for row in rows:
            shown = self._failed if row.error is not None else self._others
            if len(shown) < _SHOWN:
                shown.append(row)

    def result(self) -> BatchResult:
        failed = {f"row {row.id}": row.error or "" for row in sorted(self._failed, key=lambda row: row.row)}
        files = [self._files[shard] for shard in sorted(self._files)]
        return BatchResult(
            rows=self._states.total(), states=dict(self._states), cost=total(self._costs.elements()), failed=failed, files=files
        )

    def table(self) -> list[dict[str, object]]:
        failed, others = (sorted(rows, key=lambda row: row.row) for rows in (self._failed, self._others))
        shown = [*failed, *others][:_SHOWN]
        # A row that the manifest does not name is called by its number.
        named = any(row.id != str(row.row) for row in shown)
        return [_line(row, named=named) for row in shown]


def _line(row: RowResult, *, named: bool) -> dict[str, object]:
    asset = row.asset
    took = asset and asset.elapsed_s
    return {
        "row": row.row,
        **({"id": row.id} if named else {}),
        "state": row.state,
        "model": row.request.model if row.request else "",
        "seconds": "" if took is None else round(took, 1),
        "cost": "" if asset is None else "unknown" if asset.estimate is None else asset.estimate.figure,
        # The UI shows as much of a cell as there is, so what is long stands last.
        "error": row.error or "",
        "file": "" if asset is None else asset.uri,
        "task id": row.job.task_id if row.job else "",
    }


class _Count:
    """Counts what rows of a manifest are yet to cost, asked from the thread that reads it; what their routes would refuse is a problem."""

    def __init__(self, outlay: Outlay, credentials: str, *, refuse: bool) -> None:
        self._outlay = outlay
        self._credentials = credentials
        self._refuse = refuse

    def __call__(self, rows: Sequence[Row]) -> Sequence[Sequence[str]]:
        return anyio.from_thread.run(self._ask_all, rows)

    async def _ask_all(self, rows: Sequence[Row]) -> Sequence[Sequence[str]]:
        problems = [await self._ask(row) for row in rows]
        return problems if self._refuse else [()] * len(rows)

    async def _ask(self, row: Row) -> Sequence[str]:
        try:
            return await self._outlay.add(row.request, row.credentials or self._credentials, take=row.take)
        except (GenerationError, ValueError) as error:
            return [str(error)]


def _as_result(row: Row | BadRow) -> Row | RowResult:
    return row if isinstance(row, Row) else RowResult(row=row.row, id=row.id, error=row.error)


def _shares(concurrency: int, at_once: int) -> asyncio.Queue[int]:
    """For each of the task runs at once, how many jobs may run in it."""
    shares = asyncio.Queue[int]()
    for number in range(at_once):
        shares.put_nowait(concurrency // at_once + (number < concurrency % at_once))
    return shares


@flow(name="batch", flow_run_name="batch {manifest}", persist_result=True, result_serializer="json")
async def batch(
    manifest: str,
    *,
    credentials: str = "happyhorse",
    store: str | None = None,
    format: ManifestFormat | None = None,
    template: dict[str, str] | None = None,
    id_column: str | None = None,
    bad_rows: Literal["refuse", "skip"] = "refuse",
    concurrency: PositiveInt = 500,
    shard_rows: PositiveInt = 1000,
    deadline_s: float = 3600.0,
    fail_on_failed_rows: bool = True,
    wait: Literal["process", "suspend"] = "process",
    detach: bool = False,
    budget: Budget | None = None,
    over_budget: Literal["refuse", "skip"] = "refuse",
    labels: dict[str, str] | None = None,
) -> BatchResult:
    """Make everything that a manifest asks for, a thousand jobs in a task run, two of these side by side on the flow's task runner.

    Args:
        manifest: Where the manifest lies: a path on the worker or an fsspec URL of JSON lines, CSV, Parquet, Arrow, or of a folder of a
            Hugging Face dataset. Each row is a request, and may name `credentials` and `take` of its own; see docs/datasets.md.
        credentials: Name of a GatewayCredentials block, or a gateway whose key is in the environment, for rows that name none.
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        format: How the manifest is written. Empty: as its ending says.
        template: For each field of a request a text over the manifest's columns, such as `A {animal} in {city}`.
        id_column: The column of a row's own id. Empty: its number.
        bad_rows: Whether the run is refused, before anything is bought, when a row cannot be sent as it is; or the others are made.
        concurrency: How many jobs run at the same time, in two task runs, or in as many as have so many rows.
        shard_rows: How many rows a task run has.
        deadline_s: How long each job may take, in seconds.
        fail_on_failed_rows: Whether the run is failed, at its end, when a row failed.
        wait: Whether the jobs are waited for in this process, or the run is suspended until the flow collect has kept them all.
        detach: Whether the jobs are only submitted, for the flow collect to keep later. `concurrency` then counts submits.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included. Rows that would pass it are not bought.
        over_budget: Whether the run is refused, before anything is bought, when what it is yet to buy can never fit into what is left of
            the budget; or as many rows are made as fit.
        labels: What the jobs are called by in the journal and in `happyhorse spend`, such as a project.

    Returns:
        How many rows ended how, and where it is written how each did.

    Raises:
        InvalidRequest: When blocks, store or manifest are not as they should be; every problem is named by its row, and nothing was sent.
        BudgetExceeded: When what is yet to be bought does not fit into the budget and `over_budget` refuses that; nothing was sent.
        RowsFailed: At the end, when a row failed and `fail_on_failed_rows` is set. Running again makes only what is missing.
    """
    await check_ready(store, credentials, suspend=wait == "suspend")
    place = await MediaStore.find(store)
    form: dict[str, Any] = {"format": format, "template": template, "id_column": id_column}
    async with Outlay(place, budget=budget) as outlay:
        more = _Count(outlay, credentials, refuse=bad_rows == "refuse")
        checked = await anyio.to_thread.run_sync(lambda: check_manifest(manifest, **form, more=more))
    checked.refuse(bad_rows=bad_rows == "refuse")
    await outlay.show()
    await outlay.refuse(over_budget=over_budget)
    # Two, so that while one waits for its last jobs, or shows what it has, the next is on its way.
    at_once = min(-(-checked.rows // shard_rows), concurrency, max(2, -(-concurrency // shard_rows))) or 1
    how: dict[str, Any] = {"budget": budget, "labels": labels}

    async def run(task: Any, **how: Any) -> tuple[_Report, list[Job]]:
        report = _Report(place)
        jobs: list[Job] = []
        rows = map(_as_result, read_manifest(manifest, **form))
        shares = _shares(concurrency, at_once)

        async def make(number: int, shard: list[Row | RowResult], share: int) -> None:
            title = "batch" if checked.rows <= shard_rows else f"batch, rows {shard[0].id} to {shard[-1].id}"
            try:
                # Quoted, it is not searched for futures. A task runner's future is waited for in a thread.
                future = task.submit(quote(shard), credentials, place, title=title, concurrency=share, **how)
                ended = await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True, limiter=threads)
            except Exception as error:  # noqa: BLE001 -- the other shards are paid for; what ends a run is no Exception in Prefect
                get_run_logger().error("%s: %s: %s", title, type(error).__name__, error)
                ended = [RowResult.model_validate(dict(row)).failed(error) for row in shard]
            await report.add(number, ended)
            if wait == "suspend":
                jobs.extend(row.job for row in ended if row.job is not None)
            shares.put_nowait(share)

        threads = anyio.CapacityLimiter(at_once)
        async with anyio.create_task_group() as group:
            number = 0
            while shard := await anyio.to_thread.run_sync(lambda: list(islice(rows, shard_rows))):
                number += 1
                group.start_soon(make, number, shard, await shares.get())
        return report, jobs

    if wait == "suspend":
        _, jobs = await run(submit_many, **how)
        await suspend_until_done(jobs, place)
    report, _ = await (run(submit_many, **how) if detach else run(generate_many, deadline_s=deadline_s, **how))
    result = report.result()
    good = result.states.get("submitted" if detach else "kept", 0)
    summary = f"{good} of {result.rows} rows {'submitted' if detach else 'kept'}"
    more_rows = f"; of {result.rows} rows {_SHOWN} are shown, those that failed first" if result.rows > _SHOWN else ""
    await show_table(report.table(), key="batch", description=f"{manifest}: {summary}{more_rows}")
    cost = "" if detach else f"; estimated cost of those kept: {result.cost}"
    get_run_logger().info("%s%s. How each ended: %s", summary, cost, ", ".join(result.files[:3]))
    if result.failed and fail_on_failed_rows:
        failed = result.rows - good
        raise RowsFailed(f"{summary}; {failed} failed", result.failed, _AGAIN)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make everything that a manifest asks for.")
    parser.add_argument("manifest", help="JSON lines, CSV, Parquet, Arrow, or a folder of a data set")
    parser.add_argument("--credentials", default="happyhorse", help="name of a block, or a gateway")
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--detach", action="store_true", help="only submit; `python flows/collect.py` keeps the files later")
    arguments = parser.parse_args()
    run = batch(arguments.manifest, credentials=arguments.credentials, concurrency=arguments.concurrency, detach=arguments.detach)
    for row in asyncio.run(run).read():
        print(f"{row.id:5} {row.error or (row.asset and row.asset.uri) or (row.job and row.job.task_id)}")
