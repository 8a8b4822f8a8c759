"""Keep what earlier runs bought: every open job of a journal is asked for, and what is finished is downloaded.

Run it with `python flows/collect.py`, or deploy it with an interval beside `batch` with `detach`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

import anyio
from prefect import flow, get_run_logger
from pydantic import BaseModel, PositiveFloat, PositiveInt

from prefect_happyhorse import (
    GatewayCredentials,
    ItemsFailed,
    JournalEntry,
    MediaAsset,
    MediaStore,
    Money,
    RowResult,
    check_ready,
    collect_jobs,
    open_jobs,
    resume_runs,
    show_table,
)

_ANEW_AFTER_S = 300.0
_SUBMIT_S = 150.0
"""How long an intent may be a submit that is under way, in seconds: as long as a lease lives."""


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


def _outcome(entry: JournalEntry, row: RowResult) -> JobOutcome:
    facts: dict[str, Any] = {"state": entry.state, "task_id": row.job and row.job.task_id}
    if row.job is None and row.money is not Money.NOT_SPENT:
        facts["error"] = f"nobody knows whether this submit was accepted: happyhorse jobs show {entry.digest[:12]}"
    else:
        facts |= {"state": "running" if row.state == "submitted" else row.state, "asset": row.asset, "error": row.error}
    return JobOutcome(digest=entry.digest, model=entry.request.model, **facts)


def _outcomes(entries: Sequence[JournalEntry], rows: Sequence[RowResult]) -> list[JobOutcome]:
    return [_outcome(entry, row) for entry, row in zip(entries, rows, strict=True)]


class _Schedule:
    """When each open entry is looked after next, by a clock that nobody sets.

    Args:
        clock: Seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._not_before: dict[tuple[str, bool], float] = {}

    def due(self, entries: Iterable[JournalEntry]) -> list[JournalEntry]:
        """Those that are to be looked after now, and not again until `end`."""
        now = self._clock()
        known = {(entry.digest, entry.job is None): entry for entry in entries}
        self._not_before = {key: at for key, at in self._not_before.items() if key in known or at == inf}
        # An intent mostly is a submit that is under way, and a job a moment later: as such it is due at once.
        first = {key: now + _SUBMIT_S if entry.state == "intent" else now for key, entry in known.items()}
        due = [entry for key, entry in known.items() if self._not_before.setdefault(key, first[key]) <= now]
        self._set(due, inf)
        return due

    def end(self, entries: Iterable[JournalEntry]) -> None:
        """Say that they were looked after: one that is still open now timed out, or needs a person."""
        self._set(entries, self._clock() + _ANEW_AFTER_S)

    def _set(self, entries: Iterable[JournalEntry], at: float) -> None:
        # One without a job may get it meanwhile, from whoever looks after it.
        self._not_before.update({(entry.digest, without): at for entry in entries for without in (False, True)})


async def _follow(place: MediaStore, credentials: Sequence[GatewayCredentials], every_s: float, **how: Any) -> None:
    """Look after every job that is open and becomes open, and resume the runs that wait, for ever."""
    schedule = _Schedule()

    async def look_after(entries: list[JournalEntry]) -> None:
        try:
            await collect_jobs(entries, credentials, place, watch=True, **how)
        except Exception as error:  # noqa: BLE001 -- a store or a gateway that is away for an hour must not end it
            get_run_logger().error("%d jobs are looked after anew in %.0f s: %s", len(entries), _ANEW_AFTER_S, error)
        schedule.end(entries)

    async with anyio.create_task_group() as group:
        while True:
            try:
                # Not as a task run: there would be one every few seconds, for ever.
                if due := schedule.due(await open_jobs.fn(place)):
                    group.start_soon(look_after, due)
                await resume_runs(place)
            except Exception as error:  # noqa: BLE001 -- nor a journal that cannot be read for an hour
                get_run_logger().error("The journal in %s is looked at anew in %.0f s: %s", place.url, every_s, error)
            await anyio.sleep(every_s)


def _line(outcome: JobOutcome) -> dict[str, object]:
    return {
        "digest": outcome.digest[:12],
        "state": outcome.state,
        "model": outcome.model,
        "error": outcome.error or "",
        "file": "" if outcome.asset is None else outcome.asset.uri,
        "task id": outcome.task_id or "",
    }


@flow(name="collect", persist_result=True, result_serializer="json")
async def collect(
    *,
    store: str | None = None,
    credentials: list[str] | None = None,
    watch: bool = False,
    follow_s: PositiveFloat | None = None,
    concurrency: PositiveInt = 500,
    deadline_s: float = 86_400.0,
    fail_on_failed_jobs: bool = True,
) -> list[JobOutcome]:
    """Keep the files of all open jobs of a journal that are finished, and resume the runs that wait for them. Nothing is bought.

    Args:
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        credentials: Names of GatewayCredentials blocks. Empty: those that the jobs were bought with, else the environment.
        watch: Whether to wait for jobs that are still running; otherwise each is polled once.
        follow_s: Look for new jobs every so many seconds, wait for all of them, and never end. Empty: one pass.
        concurrency: How many jobs are looked after at the same time.
        deadline_s: With `watch` or `follow_s`, how long a job may take in all, in seconds since its submit.
        fail_on_failed_jobs: Whether the run is failed, at its end, when a job ended without a file or a submit is uncertain.

    Returns:
        Where each job stands now, oldest first.

    Raises:
        JobsFailed: At the end, when there was such a job and `fail_on_failed_jobs` is set.
    """
    await check_ready(store, *(credentials or ()))
    place = await MediaStore.find(store)
    blocks = [await GatewayCredentials.find(name) for name in credentials or ()]
    if follow_s is not None:
        await _follow(place, blocks, follow_s, concurrency=concurrency, deadline_s=deadline_s)
    entries = await open_jobs(place)
    rows = await collect_jobs(entries, blocks, place, watch=watch, concurrency=concurrency, deadline_s=deadline_s) if entries else []
    await resume_runs(place)
    outcomes = _outcomes(entries, rows)
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
    parser.add_argument("--follow", type=float, metavar="SECONDS", help="look for new jobs so often, and never end")
    arguments = parser.parse_args()
    for outcome in asyncio.run(collect(watch=arguments.watch, follow_s=arguments.follow)):
        print(f"{outcome.digest[:12]} {outcome.state:9} {outcome.error or (outcome.asset and outcome.asset.uri) or ''}")
