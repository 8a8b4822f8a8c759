"""A manifest of requests, made side by side: a failed row never stops the others, and a table says how each ended.

Run it with `python flows/batch.py MANIFEST`, or deploy it to a work pool.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import anyio
import fsspec  # pyright: ignore[reportMissingTypeStubs] -- fsspec ships no types
from prefect import flow, get_run_logger
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from prefect_happyhorse import (
    Budget,
    Gallery,
    GenerationRequest,
    ItemsFailed,
    Job,
    MediaAsset,
    MediaStore,
    check_ready,
    gather_limited,
    generate,
    show_table,
    submit,
    validation_problems,
)

_MANY = ("references", "reference_videos")


class Row(BaseModel, extra="forbid", frozen=True):
    """One row of a manifest: a request, and what is the row's own."""

    row: int = Field(description="Line of the manifest, counted from 1.")
    request: GenerationRequest
    credentials: str | None = None
    take: int = 1


class RowResult(BaseModel, frozen=True):
    """How a row ended."""

    row: int
    model: str | None = None
    job: Job | None = None
    asset: MediaAsset | None = None
    error: str | None = None

    @property
    def state(self) -> str:
        """Where the row stands."""
        return "failed" if self.error is not None else "submitted" if self.asset is None else "kept"


class RowsFailed(ItemsFailed):
    """Raised at the end of a batch of which rows failed."""


def read_manifest(text: str, *, is_csv: bool) -> tuple[list[Row], list[RowResult]]:
    """The rows of a manifest, and those that cannot be read.

    Args:
        text: JSON lines, or CSV with a head line. In CSV several media in one cell stand apart by `|`, an option has a column
            `options.NAME`, and an empty cell is not set.
        is_csv: Whether it is CSV.

    Returns:
        The rows that are requests, and for each that is none how it failed.
    """
    rows: list[Row] = []
    failed: list[RowResult] = []
    for number, line in _lines(text, is_csv=is_csv):
        try:
            rows.append(_row(number, json.loads(line) if isinstance(line, str) else line))
        except (ValueError, RecursionError) as error:
            told = "; ".join(validation_problems(error)) if isinstance(error, ValidationError) else str(error)
            failed.append(RowResult(row=number, error=f"{type(error).__name__}: {told}"))
    return rows, failed


def _lines(text: str, *, is_csv: bool) -> list[tuple[int, object]]:
    if is_csv:
        reader = csv.DictReader(io.StringIO(text), restkey="cells beyond the head line", strict=True)
        return [(reader.line_num, _from_cells(cells)) for cells in reader]
    # Not at every end of a line that Unicode knows: JSON may hold some of them inside a text.
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _from_cells(cells: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, value in cells.items():
        if not value:
            continue
        if name in _MANY:
            data[name] = [part.strip() for part in value.split("|")]
        elif name.startswith("options."):
            data.setdefault("options", {})[name.removeprefix("options.")] = _option(value)
        else:
            data[name] = value
    return data


def _option(cell: str) -> Any:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, (bool, int, float)) else cell


def _row(number: int, data: object) -> Row:
    if not isinstance(data, dict):
        raise ValueError("a row is a JSON object")
    fields = dict(cast("dict[str, Any]", data))
    own = {name: fields.pop(name) for name in ("credentials", "take") if name in fields}
    return Row.model_validate({"row": number, "request": fields, **own})


def _load(manifest: str) -> str:
    with cast("BinaryIO", fsspec.open(manifest, "rb")) as file:  # pyright: ignore[reportUnknownMemberType]
        # A spreadsheet puts a byte order mark in front of its CSV.
        return file.read().decode("utf-8-sig")


def _line(result: RowResult) -> dict[str, object]:
    asset = result.asset
    took = asset and asset.elapsed_s
    return {
        "row": result.row,
        "state": result.state,
        "model": result.model or "",
        "task id": result.job.task_id if result.job else "",
        "seconds": "" if took is None else round(took, 1),
        "cost": "" if asset is None else str(asset.estimate or "unknown"),
        "file": "" if asset is None else asset.uri,
        "error": result.error or "",
    }


@flow(name="batch", flow_run_name="batch {manifest}", persist_result=True, result_serializer="json")
async def batch(
    manifest: str,
    *,
    credentials: str = "happyhorse",
    store: str | None = None,
    concurrency: PositiveInt = 20,
    deadline_s: float = 3600.0,
    fail_on_failed_rows: bool = True,
    detach: bool = False,
    budget: Budget | None = None,
) -> list[RowResult]:
    """Make everything that a manifest asks for, so many jobs at a time.

    Args:
        manifest: Where the manifest lies: a path on the worker or an fsspec URL, ending in .csv, or else JSON lines. Each row is a request
            in JSON, and may name `credentials` and `take` of its own.
        credentials: Name of a GatewayCredentials block, or a gateway whose key is in the environment, for rows that name none.
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        concurrency: How many jobs run at the same time.
        deadline_s: How long each job may take, in seconds.
        fail_on_failed_rows: Whether the run is failed, at its end, when a row failed.
        detach: Whether the jobs are only submitted, for the flow collect to keep later. `concurrency` then counts submits.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included. Rows that would pass it are not bought.

    Returns:
        How each row ended, in the order of the manifest.

    Raises:
        RowsFailed: At the end, when a row failed and `fail_on_failed_rows` is set. Running again makes only what is missing.
    """
    await check_ready(store, credentials)
    place = await MediaStore.find(store)
    text = await anyio.to_thread.run_sync(_load, manifest)
    rows, unreadable = read_manifest(text, is_csv=manifest.lower().endswith(".csv"))
    gallery = Gallery(store=place.to_store(), title="batch")

    async def make(row: Row) -> RowResult:
        payer = row.credentials or credentials
        result = RowResult(row=row.row, model=row.request.model)
        if detach:
            return result.model_copy(update={"job": await submit(row.request, payer, place, take=row.take, budget=budget)})
        asset = await generate(row.request, payer, place, take=row.take, deadline_s=deadline_s, budget=budget)
        await gallery.add(f"row {row.row}", asset, place=row.row)
        return result.model_copy(update={"asset": asset})

    made = await gather_limited(make, rows, limit=concurrency, name=lambda row: f"Row {row.row}")
    await gallery.show()
    results = unreadable
    results += [
        RowResult(row=row.row, model=row.request.model, error=f"{type(one).__name__}: {one}") if isinstance(one, Exception) else one
        for row, one in zip(rows, made, strict=True)
    ]
    results.sort(key=lambda result: result.row)
    failed = {f"row {result.row}": result.error for result in results if result.error is not None}
    summary = f"{len(results) - len(failed)} of {len(results)} rows {'submitted' if detach else 'kept'}"
    await show_table([_line(result) for result in results], key="batch", description=f"{manifest}: {summary}")
    get_run_logger().info(summary)
    if failed and fail_on_failed_rows:
        raise RowsFailed(f"{summary}; {len(failed)} failed", failed, "Run it again to make what is missing; nothing is bought twice.")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make everything that a manifest asks for.")
    parser.add_argument("manifest", help="JSON lines or CSV")
    parser.add_argument("--credentials", default="happyhorse", help="name of a block, or a gateway")
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--detach", action="store_true", help="only submit; `python flows/collect.py` keeps the files later")
    arguments = parser.parse_args()
    run = batch(arguments.manifest, credentials=arguments.credentials, concurrency=arguments.concurrency, detach=arguments.detach)
    for result in asyncio.run(run):
        print(f"{result.row:5} {result.error or (result.asset and result.asset.uri) or (result.job and result.job.task_id)}")
