"""Waiting without a process: a flow run writes down which jobs it waits for and ends, and whoever collects these jobs resumes it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from uuid import UUID, uuid4

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import asuspend_flow_run
from pydantic import Field, ValidationError

from prefect_happyhorse.artifacts.table import show_table
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.rows import RowResult
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.bulk import gather_limited
from prefect_happyhorse.tasks.dual import dual
from prefect_happyhorse.tasks.resolve import StoreRef, store_of

__all__ = ["resume_runs", "still_open", "suspend_until_done", "suspension_problems"]

_WAITING = "journal/waiting"
_AT_ONCE = 32
_TOLD: set[str] = set()
"""The waits of other servers that this process has told of."""
_SHOWN = 1000
"""The most jobs that a suspended run's table has, which is as many rows as the UI shows."""


class _Wait(Value):
    """One wait of a flow run, in a file of its own: a run that waits again must not lose it to whoever ends the wait before."""

    flow_run_id: UUID
    key: str = Field(description="By which the server tells this wait from the run's others, such as one for a person.")
    server: str = Field(description="The address of the API that knows the run, as the run named it: several servers may share a store.")
    digests: tuple[str, ...]
    since: datetime


def suspension_problems() -> list[str]:
    """Why the current flow run cannot be suspended."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return ["only a flow run can be suspended, and there is none around this call; wait in the process instead"]
    problems: list[str] = []
    if context.flow_run.deployment_id is None:
        problems.append(
            "only the run of a deployment can be suspended, since a worker has to begin it anew; deploy the flow, or wait in the process"
        )
    if not context.persist_result:
        problems.append("a run can be suspended only where its results are persisted; say @flow(persist_result=True)")
    return problems


@dual
async def still_open(jobs: Iterable[Job | RowResult], store: StoreRef = None) -> list[Job]:
    """The jobs of which the journal does not know yet how they ended.

    Args:
        jobs: Jobs, or rows such as those of `submit_many`; a row without a job is left out.
        store: Where the journal is kept.

    Returns:
        Those of them that are open.

    Raises:
        OSError: When the store cannot be read.

    Example:
        ```python
        waiting = await still_open([job])
        ```
    """
    journal = PROCESS.journal(await store_of(store))
    given = [one.job if isinstance(one, RowResult) else one for one in jobs]
    known = {job.digest: job for job in given if job is not None}

    async def is_open(job: Job) -> bool:
        entry = await journal.read(job.digest)
        return entry is None or entry.is_open

    answers = await gather_limited(is_open, known.values(), limit=_AT_ONCE, name=lambda job: job.digest[:12])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [job for job, is_still in zip(known.values(), answers, strict=True) if is_still]


@dual
async def suspend_until_done(jobs: Iterable[Job | RowResult], store: StoreRef = None) -> None:
    """Suspend the flow run until all of these jobs have ended; it then goes on from its first line, on any worker, in a process of its own.

    What the run did before is done again and finds in the journal what is bought and what is kept. The flow `collect` has to run on the
    same store, on a schedule or for ever: it asks for the jobs, keeps what they made, and resumes the run.

    Args:
        jobs: Jobs, or rows such as those of `submit_many`.
        store: Where the journal is kept.

    Returns:
        Nothing, at once, when all have ended, be it with a result or without; ask for it with `generate` or `poll`.

    Raises:
        InvalidRequest: When the run cannot be suspended: without a deployment, or without persisted results.
        OSError: When the store cannot be read or written.

    Example:
        ```python
        await suspend_until_done([await submit(request, "happyhorse", store)], store)
        asset = await generate(request, "happyhorse", store)
        ```
    """
    if problems := suspension_problems():
        raise InvalidRequest("This run cannot be suspended. Nothing was sent just now.", problems=tuple(problems))
    waiting = await still_open(jobs, store)
    context = FlowRunContext.get()
    if not waiting or context is None or context.flow_run is None:
        return
    # A key of its own, since a run that somebody resumed too early waits once more.
    key = uuid4().hex
    async with get_client() as client:
        said = _Wait(
            flow_run_id=context.flow_run.id,
            key=key,
            server=str(client.api_url),
            digests=tuple(job.digest for job in waiting),
            since=datetime.now(timezone.utc),
        )
    place = await store_of(store)
    # Before the run is suspended: one that nobody knows of would wait for ever.
    await place.write(f"{_WAITING}/{context.flow_run.id}.{key}.json", said.model_dump_json(indent=2).encode())
    jobs_have = "one job has" if len(waiting) == 1 else f"{len(waiting)} jobs have"
    told = f"Suspended until {jobs_have} ended; the flow collect resumes the run."
    lines = [_line(job) for job in waiting[:_SHOWN]]
    await show_table(lines, key="waits for", description=told)
    run_logger().info("%s", told)
    await asuspend_flow_run(timeout=None, key=key)


def _line(job: Job) -> dict[str, object]:
    submitted_at = job.submitted_at.isoformat(timespec="seconds")
    return {"model": job.model, "gateway": job.gateway, "task id": job.task_id, "submitted at": submitted_at, "digest": job.digest[:12]}


@dual
async def resume_runs(store: StoreRef = None) -> int:
    """Resume the flow runs that wait for jobs of a store which have all ended.

    May be called at any time and by several at once: a run that is not suspended any more, or has ended, is left alone.

    Args:
        store: Where the journal is kept.

    Returns:
        How many were resumed.

    Raises:
        OSError: When the store cannot be read.

    Example:
        ```python
        await resume_runs("studio-store")
        ```
    """
    place = await store_of(store)
    names = await place.list(_WAITING)
    if not names:
        return 0
    listing = await open_entries(PROCESS.journal(place))
    # What cannot be read may stand for a job that goes on.
    open_digests = {entry.digest for entry in listing.entries} | {str(one.error.digest) for one in listing.unreadable}
    async with get_client() as client:
        return sum([await _resumed(f"{_WAITING}/{name}", place, client, open_digests) for name in names])


async def _run_of(wait: _Wait, file: str, client: PrefectClient) -> FlowRun | None:
    """The run that waits; None where it is gone, or no worker could begin it anew; ObjectNotFound where another server has it."""
    try:
        # A server may be known by several addresses, but the ids of its runs are its own.
        run = await client.read_flow_run(wait.flow_run_id)
    except ObjectNotFound:
        if wait.server == str(client.api_url):
            return None
        if file not in _TOLD:
            _TOLD.add(file)
            run_logger().warning(
                "Flow run %s waits at %s, and %s does not know it: a collector there has to resume it. If it is gone, delete %s.",
                wait.flow_run_id,
                wait.server,
                client.api_url,
                file,
            )
        raise
    try:
        if run.deployment_id is not None:
            await client.read_deployment(run.deployment_id)
    except ObjectNotFound:
        if run.state is None or not run.state.is_final():
            run_logger().error(
                "Flow run %s cannot go on, for its deployment was deleted. All that it waited for has ended: the same flow, run with the"
                " same parameters, finds it in the journal.",
                run.id,
            )
        return None
    return run


async def _resumed(path: str, store: Store, client: PrefectClient, open_digests: set[str]) -> bool:
    """Whether a run was resumed; its wait is forgotten then, and once the run has ended or waits for something else."""
    try:
        wait = _Wait.model_validate_json(await store.read(path))
    except FileNotFoundError:
        return False
    except ValidationError as error:
        run_logger().error("%s cannot be read, so the run that waits is not resumed by itself: %s", store.uri(path), error)
        return False
    if not open_digests.isdisjoint(wait.digests):
        return False
    try:
        run = await _run_of(wait, store.uri(path), client)
    except ObjectNotFound:
        return False
    state = None if run is None else run.state
    resumed = False
    if state is not None and state.is_paused() and state.state_details.pause_key == wait.key:
        answer = await client.resume_flow_run(wait.flow_run_id)
        resumed = answer.status.value == "ACCEPT"
        if not resumed:
            run_logger().warning("Flow run %s was not resumed: %s", wait.flow_run_id, answer.details)
            return False
        run_logger().info("Flow run %s is resumed.", wait.flow_run_id)
    elif state is not None and not state.is_final() and not state.is_paused():
        # It has written down that it waits, and is about to be suspended; or it goes on already.
        return False
    await store.delete(path)
    return resumed
