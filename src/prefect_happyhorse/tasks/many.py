"""Tasks that carry many jobs in one task run, each of them with every promise of a job that is made alone.

A task run costs Prefect's server and the worker more than all that is done for a job here, so hundreds of jobs belong into one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, cast, get_args

from prefect.context import TaskRunContext
from prefect.tasks import TaskRunNameCallbackWithParameters

from prefect_happyhorse.artifacts.gallery import Gallery
from prefect_happyhorse.artifacts.tally import Tally
from prefect_happyhorse.datasets import Row
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest
from prefect_happyhorse.domain.rows import RowResult, RowState
from prefect_happyhorse.engine.jobs.poll import DEADLINE_S
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.runtime.concurrency import job_slot
from prefect_happyhorse.runtime.lineage import record_lineage
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.bulk import ItemsFailed, gather_limited
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.poll import poll_in
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, argument_problems, check_payer, session_of, store_of
from prefect_happyhorse.tasks.submit import submit_in

__all__ = ["AT_ONCE", "check_many", "download_many", "generate_many", "many_rows", "named_by_rows", "poll_many", "submit_many"]

AT_ONCE = 500
"""How many jobs of a task run are open at the same time when nobody says otherwise."""

OnRow = Callable[[RowResult], Awaitable[None]]
"""Called with each row as it ends."""

Order = Literal["asked", "finished"]

_Step = Callable[[RowResult, Session], Awaitable[RowResult]]


class _RowsToRetry(ItemsFailed):
    """Makes Prefect run the task again for rows that may be tried again; what the others are is in the journal."""

    retryable = True


def named_by_rows(what: str, parameter: str) -> TaskRunNameCallbackWithParameters:
    """What names a run after how many rows it has, as `generate 300 requests`."""

    def name(parameters: dict[str, Any]) -> str:
        title = parameters.get("title")
        rows = f"{what} {len(parameters[parameter])} {parameter}" if isinstance(parameters[parameter], Sequence) else what
        return f"{rows}, {title}" if title else rows

    # Prefect looks at the parameters' names of any function; its type asks for a method that only it has.
    return cast("TaskRunNameCallbackWithParameters", name)


@retried_task(name="generate-many", task_run_name=named_by_rows("generate", "requests"))
async def generate_many(
    requests: Iterable[GenerationRequest | Row | RowResult],
    credentials: Credentials,
    store: StoreRef = None,
    *,
    concurrency: int = AT_ONCE,
    deadline_s: float = DEADLINE_S,
    on_uncertain: OnUncertain = "raise",
    budget: Budget | None = None,
    order: Order = "asked",
    title: str | None = None,
    on_row: OnRow | None = None,
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
        title: What the rows are, for the run's name, its progress and its gallery.
        on_row: Awaited with each row as it ends.

    Returns:
        For each request what became of it.

    Raises:
        InvalidRequest: When an argument or an item is of a wrong kind; all are named, and nothing is sent.

    Example:
        ```python
        rows = await generate_many([TextToImage(model="gpt-image-2", prompt=word) for word in words], "happyhorse")
        ```
    """
    rows = _rows(requests)
    check_many(
        rows, credentials, store, concurrency=concurrency, order=order, on_uncertain=on_uncertain, budget=budget, deadline_s=deadline_s
    )
    submitting = _submitting(on_uncertain=on_uncertain, budget=budget)
    place = await store_of(store)
    payers = _payers(credentials, place)
    async with many_rows(rows, payers, place, title=title or "generate many", goal="kept", order=order, on_row=on_row) as many:
        return await many.run([submitting, _polling(deadline_s=deadline_s), many.downloading], concurrency=concurrency)


@retried_task(name="submit-many", task_run_name=named_by_rows("submit", "requests"))
async def submit_many(
    requests: Iterable[GenerationRequest | Row | RowResult],
    credentials: Credentials,
    store: StoreRef = None,
    *,
    concurrency: int = AT_ONCE,
    on_uncertain: OnUncertain = "raise",
    budget: Budget | None = None,
    order: Order = "asked",
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
    rows = _rows(requests)
    check_many(rows, credentials, store, concurrency=concurrency, order=order, on_uncertain=on_uncertain, budget=budget)
    place = await store_of(store)
    payers = _payers(credentials, place)
    async with many_rows(rows, payers, place, title=title or "submit many", goal="submitted", order=order, on_row=on_row) as many:
        return await many.run([_submitting(on_uncertain=on_uncertain, budget=budget)], concurrency=concurrency)


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
    rows = _rows(jobs)
    check_many(rows, credentials, store, concurrency=concurrency, order=order, deadline_s=deadline_s)
    place = await store_of(store)
    payers = _payers(credentials, place)
    async with many_rows(rows, payers, place, title=title or "poll many", goal="succeeded", order=order, on_row=on_row) as many:
        return await many.run([_polling(deadline_s=deadline_s)], concurrency=concurrency)


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
    rows = _rows(results)
    check_many(rows, credentials, store, concurrency=concurrency, order=order)
    place = await store_of(store)
    payers = _payers(credentials, place)
    async with many_rows(rows, payers, place, title=title or "download many", goal="kept", order=order, on_row=on_row) as many:
        return await many.run([many.downloading], concurrency=concurrency)


class _Many(NamedTuple):
    """Rows on their way."""

    rows: Sequence[RowResult]
    find_session: Callable[[RowResult], Awaitable[Session]]
    tally: Tally
    gallery: Gallery
    order: Order
    on_row: OnRow | None

    async def run(self, steps: Sequence[_Step], *, concurrency: int) -> list[RowResult]:
        """Take each row through the steps, and raise where Prefect is to run those again that may be tried again."""
        ended: list[RowResult] = []

        async def one(row: RowResult) -> RowResult:
            row = await self._through(steps, row)
            ended.append(row)
            if self.on_row is not None:
                await self.on_row(row)
            return row

        asked = await gather_limited(one, self.rows, limit=concurrency, name=lambda row: f"Row {row.id}")
        # Only the caller's own function can have failed here.
        for row in asked:
            if isinstance(row, Exception):
                raise row
        context = TaskRunContext.get()
        again = {f"row {row.id}": row.error or "" for row in ended if row.retryable}
        if again and context is not None and context.task_run.run_count <= context.task.retries:
            raise _RowsToRetry(f"{len(again)} of {len(ended)} rows are tried again", again)
        return cast("list[RowResult]", asked) if self.order == "asked" else ended

    async def _through(self, steps: Sequence[_Step], row: RowResult) -> RowResult:
        if row.error is None:
            try:
                session = await self.find_session(row)
                check_payer(session.account, row.job)
                async with job_slot(session.account):
                    for step in steps:
                        row = await step(row, session)
                        await self.tally.count(row)
            except Exception as error:  # noqa: BLE001 -- the other rows are paid for; what ends a run is no Exception in Prefect
                run_logger().error("Row %s: %s: %s", row.id, type(error).__name__, error)
                row = row.failed(error)
        await self.tally.count(row)
        return row

    async def downloading(self, row: RowResult, session: Session) -> RowResult:
        """Keep a row's outputs."""
        if row.result is None:
            return row
        stored = await session.store_outputs(row.result)
        for number, asset in enumerate((stored.asset, *stored.asset.siblings)):
            record_lineage(asset, stored.inputs)
            head = f"row {row.id}" if number == 0 else f"row {row.id}, {number + 1}"
            await self.gallery.add(head, asset, place=row.row, thumbnail=stored.thumbnails.get(asset.sha256))
        # The asset knows its job, and its addresses at the provider are of no use any more.
        row = row.model_copy(update={"asset": stored.asset, "result": None})
        return row if stored.failure is None else row.failed(stored.failure)


def _payers(credentials: Credentials, store: Store) -> Callable[[RowResult], Awaitable[Session]]:
    """What finds the session of a row, once for all that name the same credentials."""
    found: dict[str, Session | Exception] = {}

    async def find(row: RowResult) -> Session:
        payer = row.credentials or credentials
        key = payer if isinstance(payer, str) else ""
        if key not in found:
            try:
                found[key] = await session_of(payer, store)
            except Exception as error:  # noqa: BLE001 -- a block that is missing is so for each row that names it
                found[key] = error
        session = found[key]
        if isinstance(session, Exception):
            raise session
        return session

    return find


@asynccontextmanager
async def many_rows(
    rows: Sequence[RowResult],
    find_session: Callable[[RowResult], Awaitable[Session]],
    store: Store,
    *,
    title: str,
    goal: RowState,
    order: Order = "asked",
    on_row: OnRow | None = None,
) -> AsyncGenerator[_Many]:
    """Rows whose progress and pictures are shown at the end, however it ends."""
    tally, gallery = Tally(title, len(rows), goal=goal), Gallery(store=store, title=title)
    try:
        yield _Many(rows, find_session, tally, gallery, order, on_row)
    finally:
        await gallery.show()
        await tally.show()
        run_logger().info("%s", tally)


def _submitting(*, on_uncertain: OnUncertain, budget: Budget | None) -> _Step:
    async def step(row: RowResult, session: Session) -> RowResult:
        if row.job is not None or row.request is None:
            return row
        submitted = await submit_in(session, row.request, take=row.take, on_uncertain=on_uncertain, budget=budget)
        return row.model_copy(update={"job": submitted.job})

    return step


def _polling(*, deadline_s: float) -> _Step:
    async def step(row: RowResult, session: Session) -> RowResult:
        if row.job is None or row.result is not None or row.asset is not None:
            return row
        return row.model_copy(update={"result": await poll_in(session, row.job, deadline_s=deadline_s)})

    return step


def _rows(items: Iterable[GenerationRequest | Row | Job | JobResult | RowResult]) -> list[RowResult]:
    """A row for each item; one of another kind is refused."""
    rows: list[RowResult] = []
    problems: list[str] = []
    for number, item in enumerate(items, start=1):
        if isinstance(item, RowResult):
            # What may be tried again is tried again.
            rows.append(item.model_copy(update={"error": None, "money": None, "retryable": False}) if item.retryable else item)
        elif isinstance(item, Row):
            rows.append(RowResult(**dict(item)))
        elif isinstance(item, Job):
            rows.append(RowResult(row=number, id=str(number), job=item))
        elif isinstance(item, JobResult):
            rows.append(RowResult(row=number, id=str(number), job=item.job, result=item))
        elif isinstance(item, tuple(REQUEST_CLASSES.values())):
            rows.append(RowResult(row=number, id=str(number), request=item))
        else:
            problems.append(f"item {number} must be a request, a job, a result or a row (got {type(item).__name__})")
    if problems:
        raise InvalidRequest("The call has wrong arguments. Nothing was sent.", problems=tuple(problems))
    return rows


def check_many(rows: Sequence[RowResult], credentials: object, store: object, *, concurrency: object, order: object, **others: Any) -> None:
    """Refuse wrong arguments of a task for many, every problem at once; `others` as for `argument_problems`."""
    problems = argument_problems(credentials=credentials, store=store, **others)
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        problems.append(f"concurrency must be a whole number from 1 (got {concurrency!r})")
    if order not in get_args(Order):
        problems.append(f"order must be 'asked' or 'finished' (got {order!r})")
    numbers = [row.row for row in rows]
    if len(set(numbers)) < len(numbers):
        problems.append("each row must have a number of its own")
    if problems:
        raise InvalidRequest("The call has wrong arguments. Nothing was sent.", problems=tuple(problems))
