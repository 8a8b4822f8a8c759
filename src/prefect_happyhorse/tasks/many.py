"""Tasks that carry many jobs in one task run, each of them with every promise of a job that is made alone.

A task run costs Prefect's server and the worker more than all that is done for a job here, so hundreds of jobs belong into one.
"""

from __future__ import annotations

from collections.abc import Iterable

from prefect_happyhorse.datasets import Row
from prefect_happyhorse.domain.jobs import DEADLINE_S, Job, JobResult
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.rows import RowResult
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.tasks.check import Check
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef
from prefect_happyhorse.tasks.rows import AT_ONCE, OnRow, Order, Shown, Submitting, downloading, named_by_rows, polling, run_rows

__all__ = ["download_many", "generate_many", "poll_many", "submit_many"]


@retried_task(name="generate-many", task_run_name=named_by_rows("generate", "requests"))
async def generate_many(
    requests: Iterable[GenerationRequest | Row | RowResult],
    credentials: Credentials,
    store: StoreRef = None,
    *,
    concurrency: int = AT_ONCE,
    deadline_s: float = DEADLINE_S,
    on_uncertain: OnUncertain = "settle",
    budget: Budget | None = None,
    order: Order = "asked",
    labels: Labels | None = None,
    title: str | None = None,
    on_row: OnRow | None = None,
    check: Check | None = None,
    max_takes: int = 1,
) -> list[RowResult]:
    """Submit, poll and download many requests in one task run: a few hundred, or as many as fit into memory.

    A row that fails stops no other. While the task run has retries left, rows that failed in a way that may pass are tried again.
    Whatever was bought before, by this run or another, is found in the journal and not bought again.

    Args:
        requests: What to make: requests, or rows of a manifest, which may also say who pays and which take it is. An iterator is read
            at once.
        credentials: Who pays, for rows that do not say.
        store: Where the journal and the results are kept.
        concurrency: How many jobs are open at the same time.
        deadline_s: How long each job may take, in seconds since it was submitted.
        on_uncertain: See `submit`.
        budget: See `submit`.
        order: "asked", or "finished" for the order in which they ended.
        labels: What the jobs are called by; see `submit`.
        title: What the rows are, for the run's name, its progress and its gallery.
        on_row: Awaited with each row as it ends.
        check: See `generate`. A row of which no take passes has failed; its `take` and `asset` are those that passed, else the last: what
            passed has the state "kept".
        max_takes: See `generate`; for each row.

    Returns:
        For each request what became of it.

    Raises:
        InvalidRequest: When an argument or an item is of a wrong kind; all are named, and nothing is sent.

    Example:
        ```python
        rows = await generate_many([TextToImage(model="gpt-image-2", prompt=word) for word in words], "happyhorse")
        ```
    """
    steps = [Submitting(on_uncertain=on_uncertain, budget=budget, labels=labels), polling(deadline_s=deadline_s), downloading]
    shown = Shown(title or "generate many", "kept", order, on_row)
    return await run_rows(
        requests,
        steps,
        credentials,
        store,
        shown,
        concurrency=concurrency,
        on_uncertain=on_uncertain,
        budget=budget,
        deadline_s=deadline_s,
        labels=labels,
        check=check,
        max_takes=max_takes,
    )


@retried_task(name="submit-many", task_run_name=named_by_rows("submit", "requests"))
async def submit_many(
    requests: Iterable[GenerationRequest | Row | RowResult],
    credentials: Credentials,
    store: StoreRef = None,
    *,
    concurrency: int = AT_ONCE,
    on_uncertain: OnUncertain = "settle",
    budget: Budget | None = None,
    order: Order = "asked",
    labels: Labels | None = None,
    title: str | None = None,
    on_row: OnRow | None = None,
) -> list[RowResult]:
    """Submit many requests, each at most once, in one task run.

    Args:
        requests: See `generate_many`.
        credentials: See `generate_many`.
        store: Where the journal is kept.
        concurrency: How many are submitted at the same time.
        on_uncertain: See `submit`.
        budget: See `submit`.
        order: See `generate_many`.
        labels: See `submit`.
        title: See `generate_many`.
        on_row: See `generate_many`.

    Returns:
        For each request a row with its job, for `poll_many`.

    Raises:
        InvalidRequest: As `generate_many`.

    Example:
        ```python
        rows = await submit_many(requests, "happyhorse", concurrency=50)
        ```
    """
    shown = Shown(title or "submit many", "submitted", order, on_row)
    steps = [Submitting(on_uncertain=on_uncertain, budget=budget, labels=labels)]
    return await run_rows(requests, steps, credentials, store, shown, concurrency=concurrency, on_uncertain=on_uncertain, budget=budget)


@retried_task(name="poll-many", task_run_name=named_by_rows("poll", "jobs"))
async def poll_many(
    jobs: Iterable[Job | RowResult],
    credentials: Credentials,
    store: StoreRef = None,
    *,
    concurrency: int = AT_ONCE,
    deadline_s: float = DEADLINE_S,
    order: Order = "asked",
    title: str | None = None,
    on_row: OnRow | None = None,
) -> list[RowResult]:
    """Wait for many jobs in one task run.

    Args:
        jobs: Jobs, or the rows of `submit_many`, of which those that failed stay as they are.
        credentials: See `generate_many`.
        store: Where the journal is kept.
        concurrency: How many are waited for at the same time.
        deadline_s: How long each job may take, in seconds since it was submitted.
        order: See `generate_many`.
        title: See `generate_many`.
        on_row: See `generate_many`.

    Returns:
        For each job a row with its result, for `download_many`.

    Raises:
        InvalidRequest: As `generate_many`.

    Example:
        ```python
        rows = await poll_many(await submit_many(requests, "happyhorse"), "happyhorse")
        ```
    """
    shown = Shown(title or "poll many", "succeeded", order, on_row)
    steps = [polling(deadline_s=deadline_s)]
    return await run_rows(jobs, steps, credentials, store, shown, concurrency=concurrency, deadline_s=deadline_s)


@retried_task(name="download-many", task_run_name=named_by_rows("download", "results"))
async def download_many(
    results: Iterable[JobResult | RowResult],
    credentials: Credentials,
    store: StoreRef = None,
    *,
    concurrency: int = AT_ONCE,
    order: Order = "asked",
    title: str | None = None,
    on_row: OnRow | None = None,
) -> list[RowResult]:
    """Keep the outputs of many finished jobs in one task run, and show them side by side.

    Args:
        results: Results, or the rows of `poll_many`, of which those that failed stay as they are.
        credentials: See `generate_many`.
        store: Where the outputs are kept.
        concurrency: How many jobs' outputs are fetched at the same time.
        order: See `generate_many`.
        title: See `generate_many`.
        on_row: See `generate_many`.

    Returns:
        For each result a row with its asset.

    Raises:
        InvalidRequest: As `generate_many`.

    Example:
        ```python
        rows = await download_many(await poll_many(jobs, "happyhorse"), "happyhorse")
        ```
    """
    shown = Shown(title or "download many", "kept", order, on_row)
    return await run_rows(results, [downloading], credentials, store, shown, concurrency=concurrency)
