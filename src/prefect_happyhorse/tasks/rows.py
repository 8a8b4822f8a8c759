"""Rows on their way: what the tasks for many do with each of them, and how all of them are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal, NamedTuple, cast, get_args

import anyio
from prefect.context import TaskRunContext
from prefect.tasks import TaskRunNameCallbackWithParameters

from prefect_happyhorse.artifacts.gallery import Gallery
from prefect_happyhorse.artifacts.tally import Tally
from prefect_happyhorse.blocks import GatewayCredentials
from prefect_happyhorse.datasets import Row
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import InvalidRequest, JobFailed
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest
from prefect_happyhorse.domain.rows import RowResult, RowState
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.results import StoredResult
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.runtime.concurrency import job_slot, keeping_slot
from prefect_happyhorse.runtime.lineage import is_recorded, record_lineage
from prefect_happyhorse.runtime.log import Log, run_logger
from prefect_happyhorse.tasks.bulk import ItemsFailed, gather_limited
from prefect_happyhorse.tasks.check import Check, checked
from prefect_happyhorse.tasks.poll import poll_in
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, argument_problems, check_payer, payer_of, store_of
from prefect_happyhorse.tasks.submit import AGAIN, submit_in

__all__ = ["AT_ONCE", "FindSession", "Item", "OnRow", "Order", "Shown", "Submitting", "downloading", "named_by_rows", "polling", "run_rows"]

AT_ONCE = 500
"""How many jobs of a task run are open at the same time when nobody says otherwise."""

Item = GenerationRequest | Row | Job | JobResult | RowResult
"""What can be a row."""

OnRow = Callable[[RowResult], Awaitable[None]]
"""Called with each row as it ends."""

Order = Literal["asked", "finished"]

Step = Callable[[RowResult, Session | Pool, Gallery], Awaitable[RowResult]]
"""Takes a row further; one that it has nothing to do with is given back as it is."""

FindSession = Callable[[RowResult], Awaitable[Session | Pool]]


class Shown(NamedTuple):
    """How rows are told of.

    Args:
        title: What they are, for their progress and their gallery.
        goal: The state at which a row has come as far as it should.
        order: In which order they are returned.
        on_row: Awaited with each row as it ends.
    """

    title: str
    goal: RowState
    order: Order = "asked"
    on_row: OnRow | None = None


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


async def run_rows(
    items: Iterable[Item],
    steps: Sequence[Step],
    credentials: Credentials,
    store: StoreRef,
    shown: Shown,
    *,
    concurrency: int,
    find_session: Callable[[Store], Awaitable[FindSession]] | None = None,
    check: Check | None = None,
    max_takes: int = 1,
    **others: Any,
) -> list[RowResult]:
    """Take each item through the steps, a limited number at a time, and show how far they are, however it ends.

    Wrong arguments, `others` as for `argument_problems` among them, and items that can be no row are refused at once. A row that fails
    stops no other; where Prefect has a retry left for those that may be tried again, it is made to run the task again.
    """
    rows = _checked(items, credentials, store, shown, concurrency=concurrency, check=check, max_takes=max_takes, **others)
    place = await store_of(store)
    find = await (_payers(credentials, place) if find_session is None else find_session(place))
    tally, gallery = Tally(shown.title, len(rows), goal=shown.goal), Gallery(store=place, title=shown.title)
    way = _Way(find, steps, gallery, run_logger(), check, max_takes)
    ended: list[RowResult] = []

    async def one(row: RowResult) -> RowResult:
        async def on_step(stepped: RowResult) -> None:
            nonlocal row
            row = stepped
            await tally.count(row)

        if row.error is None:
            try:
                await way.take(row, on_step)
            except Exception as error:  # noqa: BLE001 -- the other rows are paid for; what ends a run is no Exception in Prefect
                run_logger().error("Row %s: %s: %s", row.id, type(error).__name__, error)
                row = row.failed(error)
        await tally.count(row)
        ended.append(row)
        if shown.on_row is not None:
            await shown.on_row(row)
        return row

    try:
        asked = await gather_limited(one, rows, limit=concurrency, name=lambda row: f"Row {row.id}")
    finally:
        await gallery.show()
        await tally.show()
        run_logger().info("%s", tally)
    for row in asked:
        # Only the caller's own function can have failed here.
        if isinstance(row, Exception):
            raise row
    context = TaskRunContext.get()
    again = {f"row {row.id}": row.error or "" for row in ended if row.retryable}
    if again and context is not None and context.task_run.run_count <= context.task.retries:
        raise _RowsToRetry(f"{len(again)} of {len(ended)} rows are tried again", again)
    return cast("list[RowResult]", asked) if shown.order == "asked" else ended


class _Way(NamedTuple):
    """What rows are taken through."""

    find: FindSession
    steps: Sequence[Step]
    gallery: Gallery
    log: Log
    check: Check | None
    max_takes: int

    async def take(self, asked: RowResult, on_step: OnRow) -> None:
        """Take a row through the steps, and where the check refuses what came, as further takes."""
        # A row that comes back has no more takes than when it came first.
        first = asked.take - asked.refused if self.check is not None else asked.take

        async def make(number: int) -> MediaAsset | None:
            row = asked
            if number != asked.take:
                row = asked.model_copy(update={"take": number, "refused": number - first, "job": None, "result": None, "asset": None})
                # What happens to it is told of this take, and not of the one before.
                await on_step(row)
            payer = await self.find(row)
            submit = self.steps[0]
            stored = await submit.find_kept(row, payer) if downloading in self.steps and isinstance(submit, Submitting) else None
            if stored is None:
                row = await _carry(row, payer, self.steps, self.gallery, on_step)
            else:
                await on_step(row := await _kept(row, stored, self.gallery, self.log))
            # Where some outputs are missing it is not whole.
            return None if row.error is not None else row.asset

        # Of a job alone it is not known what to buy again.
        await checked(make, self.check, take=first, max_takes=1 if asked.request is None else self.max_takes)


async def _carry(row: RowResult, payer: Session | Pool, steps: Sequence[Step], gallery: Gallery, on_step: OnRow) -> RowResult:
    """Take a row through the steps, from the first anew where a pool is asked to buy a failure again."""
    asked = row
    for left in range(payer.rounds, 0, -1):
        try:
            async with AsyncExitStack() as held, keeping_slot():
                for step in steps:
                    await _hold_slot(held, payer, row.job)
                    row = await step(row, payer, gallery)
                    await on_step(row)
            return row
        except JobFailed as error:
            # What another run bought is not bought again here.
            if left == 1 or row.job is None or asked.job is not None:
                raise
            run_logger().warning("Row %s: %s %s", row.id, error.message, AGAIN)
            row = asked
    raise AssertionError("unreachable: the last round returns or raises")


async def _hold_slot(held: AsyncExitStack, payer: Session | Pool, job: Job | None) -> None:
    """Hold a slot of whoever pays, where that is known: a pool's submit holds one of each gateway that it asks, and keeps its job's."""
    session = payer if job is None else payer.of(job)
    if isinstance(session, Session):
        check_payer(session.account, job)
        await held.enter_async_context(job_slot(session.account))


class Submitting:
    """Submits a row's request."""

    def __init__(self, *, on_uncertain: OnUncertain, budget: Budget | None, labels: Labels | None = None) -> None:
        self._how: dict[str, Any] = {"on_uncertain": on_uncertain, "budget": budget, "labels": labels}
        self._prepared: dict[int, Prepared] = {}
        self._looking = asyncio.Lock()
        self._asked: set[str] = set()
        self._found: dict[str, StoredResult] = {}

    async def __call__(self, row: RowResult, payer: Session | Pool, gallery: Gallery) -> RowResult:
        """The row with its job."""
        if row.job is not None or row.request is None:
            return row
        submitted = await submit_in(payer, row.request, take=row.take, prepared=self._prepared.pop(row.row, None), **self._how)
        return row.model_copy(update={"job": submitted.job})

    async def find_kept(self, row: RowResult, payer: Session | Pool) -> StoredResult | None:
        """What was made of a row's request before, where all of it is kept: looked up once for all rows that ask meanwhile."""
        if row.job is not None or row.request is None or isinstance(payer, Pool):
            return None
        # What was bought did fit its route: only what is not kept is checked.
        identified = await payer.identify(row.request, take=row.take)
        if (digest := identified.digest) is not None:
            self._asked.add(digest)
            async with self._looking:
                if digest in self._asked:
                    asked, self._asked = self._asked, set()
                    # Whoever submits is told.
                    with suppress(OSError):
                        self._found |= await payer.find_kept(asked)
            if (stored := self._found.pop(digest, None)) is not None:
                return stored
        self._prepared[row.row] = identified.prepared()
        return None


def polling(*, deadline_s: float) -> Step:
    """Waits for a row's job."""

    async def step(row: RowResult, payer: Session | Pool, gallery: Gallery) -> RowResult:
        if row.job is None or row.result is not None or row.asset is not None:
            return row
        return row.model_copy(update={"result": await poll_in(payer.of(row.job), row.job, deadline_s=deadline_s)})

    return step


async def downloading(row: RowResult, payer: Session | Pool, gallery: Gallery) -> RowResult:
    """Keeps a row's outputs."""
    if row.result is None:
        return row
    return await _kept(row, await payer.of(row.result.job).store_outputs(row.result), gallery, run_logger())


async def _kept(row: RowResult, stored: StoredResult, gallery: Gallery, log: Log) -> RowResult:
    """A row with what is kept of it, which is shown."""
    is_new = stored.earlier is None or not await is_recorded(*stored.earlier)
    for number, (asset, thumbnail) in enumerate(stored.with_thumbnails(), start=1):
        if is_new:
            record_lineage(asset, stored.inputs)
        for warning in asset.warnings:
            log.warning("Row %s: %s: %s", row.id, asset.uri, warning)
        take = "" if row.take == 1 else f", take {row.take}"
        head = f"row {row.id}{take}" if number == 1 else f"row {row.id}{take}, {number}"
        await gallery.add(head, asset, place=row.row, thumbnail=thumbnail)
    # The asset knows its job, and its addresses at the provider are of no use any more.
    row = row.model_copy(update={"job": stored.asset.job or row.job, "asset": stored.asset, "result": None})
    return row if stored.failure is None else row.failed(stored.failure)


async def _payers(credentials: Credentials, store: Store) -> FindSession:
    """What finds who pays for a row, once for all that name the same credentials; what makes no pool is refused at once."""
    found: dict[str, Session | Pool | Exception] = {}
    asking = anyio.Lock()
    if not isinstance(credentials, (str, GatewayCredentials)):
        found[""] = await payer_of(credentials, store)

    async def find(row: RowResult) -> Session | Pool:
        payer = row.credentials or credentials
        key = payer if isinstance(payer, str) else ""
        if key not in found:
            async with asking:
                # Hundreds of rows begin at once, and all but the first find it here.
                if key not in found:
                    try:
                        found[key] = await payer_of(payer, store)
                    except Exception as error:  # noqa: BLE001 -- a block that is missing is so for each row that names it
                        found[key] = error
        one = found[key]
        if isinstance(one, Exception):
            raise one
        return one

    return find


def _checked(
    items: Iterable[Item],
    credentials: Credentials,
    store: StoreRef,
    shown: Shown,
    *,
    concurrency: int,
    **others: Any,
) -> list[RowResult]:
    """A row for each item; what can be none is refused with all that is wrong with the arguments."""
    problems = argument_problems(credentials=credentials, store=store, **others)
    rows: list[RowResult] = []
    for number, item in enumerate(items, start=1):
        if (row := _row(number, item)) is not None:
            rows.append(row)
        else:
            problems.append(f"item {number} must be a request, a job, a result or a row (got {type(item).__name__})")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are untyped
        problems.append(f"concurrency must be a whole number from 1 (got {concurrency!r})")
    if shown.order not in get_args(Order):
        problems.append(f"order must be 'asked' or 'finished' (got {shown.order!r})")
    if len({row.row for row in rows}) < len(rows):
        problems.append("each row must have a number of its own")
    if problems:
        raise InvalidRequest("The call has wrong arguments. Nothing was sent.", problems=tuple(problems))
    return rows


def _row(number: int, item: Item) -> RowResult | None:
    if isinstance(item, RowResult):
        # What may be tried again is tried again.
        return item.model_copy(update={"error": None, "money": None, "retryable": False}) if item.retryable else item
    if isinstance(item, Row):
        return RowResult(**dict(item))
    own: dict[str, Any] = {"row": number, "id": str(number)}
    if isinstance(item, Job):
        return RowResult(**own, job=item)
    if isinstance(item, JobResult):
        return RowResult(**own, job=item.job, result=item)
    return RowResult(**own, request=item) if isinstance(item, tuple(REQUEST_CLASSES.values())) else None
