"""Keep what earlier runs bought: every open job of a journal is asked for, and what is finished is downloaded.

Run it with `python flows/collect.py`, or deploy it with an interval beside `batch` with `detach`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger
from pydantic import BaseModel, PositiveInt

from prefect_happyhorse import (
    GatewayCredentials,
    ItemsFailed,
    Job,
    JobExpired,
    JobTimedOut,
    JournalEntry,
    MediaAsset,
    MediaStore,
    check_ready,
    download,
    gather_limited,
    open_jobs,
    poll,
    poll_once,
    show_table,
)


class JobOutcome(BaseModel, frozen=True):
    """Where an open job stands now."""

    digest: str
    state: str
    model: str
    task_id: str | None = None
    asset: MediaAsset | None = None
    error: str | None = None


class JobsFailed(ItemsFailed):
    """Raised at the end of a run that found jobs which ended without a file, or submits of which nobody knows the outcome."""


def _outcome(entry: JournalEntry, **now: Any) -> JobOutcome:
    facts: dict[str, Any] = {"state": entry.state, "task_id": entry.job and entry.job.task_id, **now}
    return JobOutcome(digest=entry.digest, model=entry.request.model, **facts)


async def _payer(entry: JournalEntry, credentials: Sequence[GatewayCredentials]) -> GatewayCredentials:
    for block in credentials:
        if (block.gateway, block.to_account().label) == (entry.gateway, entry.account):
            return block
    return await GatewayCredentials.of_job(gateway=entry.gateway, account=entry.account, name=entry.credentials)


async def _is_running(job: Job, payer: GatewayCredentials, store: MediaStore) -> bool:
    try:
        return not (await poll_once(job, payer, store)).status.final
    except JobExpired:
        # Poll says so once more, and writes it down.
        return False


async def _collect(
    entry: JournalEntry, credentials: Sequence[GatewayCredentials], store: MediaStore, *, deadline_s: float, watch: bool
) -> JobOutcome:
    if entry.job is None:
        told = f"nobody knows whether this submit was accepted: happyhorse jobs show {entry.digest[:12]}"
        return _outcome(entry, error=told)
    payer = await _payer(entry, credentials)
    if not watch and entry.result is None and await _is_running(entry.job, payer, store):
        return _outcome(entry, state="running")
    try:
        result = await poll(entry.job, payer, store, deadline_s=deadline_s)
    except JobTimedOut:
        return _outcome(entry, state="running")
    return _outcome(entry, state="kept", asset=await download(result, payer, store))


def _line(outcome: JobOutcome) -> dict[str, object]:
    return {
        "digest": outcome.digest[:12],
        "state": outcome.state,
        "model": outcome.model,
        "task id": outcome.task_id or "",
        "file": "" if outcome.asset is None else outcome.asset.uri,
        "error": outcome.error or "",
    }


@flow(name="collect", persist_result=True, result_serializer="json")
async def collect(
    *,
    store: str | None = None,
    credentials: list[str] | None = None,
    watch: bool = False,
    concurrency: PositiveInt = 20,
    deadline_s: float = 86_400.0,
    fail_on_failed_jobs: bool = True,
) -> list[JobOutcome]:
    """Keep the files of all open jobs of a journal that are finished. Nothing is bought.

    Args:
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        credentials: Names of GatewayCredentials blocks. Empty: those that the jobs were bought with, else the environment.
        watch: Whether to wait for jobs that are still running; otherwise each is polled once.
        concurrency: How many jobs are looked after at the same time.
        deadline_s: With `watch`, how long a job may take in all, in seconds since its submit.
        fail_on_failed_jobs: Whether the run is failed, at its end, when a job ended without a file or a submit is uncertain.

    Returns:
        Where each job stands now, oldest first.

    Raises:
        JobsFailed: At the end, when there was such a job and `fail_on_failed_jobs` is set.
    """
    await check_ready(store, *(credentials or ()))
    place = await MediaStore.find(store)
    blocks = [await GatewayCredentials.find(name) for name in credentials or ()]
    entries = await open_jobs(place)
    found = await gather_limited(
        lambda entry: _collect(entry, blocks, place, deadline_s=deadline_s, watch=watch),
        entries,
        limit=concurrency,
        name=lambda entry: entry.digest[:12],
    )
    outcomes = [
        _outcome(entry, state="failed", error=f"{type(one).__name__}: {one}") if isinstance(one, Exception) else one
        for entry, one in zip(entries, found, strict=True)
    ]
    failed = {outcome.digest[:12]: outcome.error for outcome in outcomes if outcome.error is not None}
    running = sum(outcome.state == "running" for outcome in outcomes)
    summary = f"{sum(outcome.state == 'kept' for outcome in outcomes)} of {len(outcomes)} open jobs kept, {running} still running"
    if outcomes:
        await show_table([_line(outcome) for outcome in outcomes], key="collect", description=f"{place.url}: {summary}")
    get_run_logger().info(summary)
    if failed and fail_on_failed_jobs:
        raise JobsFailed(f"{summary}; {len(failed)} need a look", failed)
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep the files of open jobs that are finished.")
    parser.add_argument("--watch", action="store_true", help="wait for jobs that are still running")
    for outcome in asyncio.run(collect(watch=parser.parse_args().watch)):
        print(f"{outcome.digest[:12]} {outcome.state:9} {outcome.error or (outcome.asset and outcome.asset.uri) or ''}")
