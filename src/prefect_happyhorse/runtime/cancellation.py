"""What happens to a job when the flow run that waits for it is cancelled: it is cancelled at the gateway too, where that is possible.

A run that only crashed, timed out or lost its worker keeps its jobs: they are paid for, and the next run goes on with them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectNotFound

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs.session import Session

__all__ = ["cancelled_with_its_run", "flow_run_id"]

_LOOK_EVERY_S = 2.0
_GIVE_UP_S = 15.0

# As a string, since Python 3.10's LoggerAdapter takes no parameter when it runs.
_Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"

_log = logging.getLogger(__name__)


def flow_run_id() -> UUID | None:
    """The flow run that this code is part of, or None."""
    flow = FlowRunContext.get()
    if flow is not None and flow.flow_run is not None:
        return flow.flow_run.id
    task = TaskRunContext.get()
    return None if task is None else task.task_run.flow_run_id


_SEEN: dict[UUID, tuple[float, bool]] = {}
"""For each flow run when its state was asked for, and whether it was cancelled then."""


async def _is_cancelled(run: UUID, *, fresh: bool = False) -> bool:
    """Whether somebody asked for the run to be cancelled; all jobs of a run in a process share one question every two seconds."""
    at, cancelled = _SEEN.get(run, (float("-inf"), False))
    if not fresh and time.monotonic() - at < _LOOK_EVERY_S:
        return cancelled
    _SEEN[run] = (time.monotonic(), cancelled)
    try:
        async with get_client() as client:
            state = (await client.read_flow_run(run)).state
    except (httpx.HTTPError, ObjectNotFound, OSError, RuntimeError) as error:
        # Whoever cannot ask goes on waiting: giving a job up that nobody cancelled would lose what was paid for.
        _log.debug("The state of flow run %s could not be read: %s", run, error)
        return cancelled
    cancelled = state is not None and (state.is_cancelling() or state.is_cancelled())
    _SEEN[run] = (time.monotonic(), cancelled)
    return cancelled


@asynccontextmanager
async def cancelled_with_its_run(job: Job | str, session: Session, log: _Log) -> AsyncGenerator[None]:
    """Submit a digest or wait for its job in here: when the flow run is cancelled this ends, and the job is cancelled at its gateway."""
    run = flow_run_id()
    if run is None:
        yield
        return
    waiting = asyncio.current_task()
    # Prefect ends what the main thread awaits by itself. What runs in threads of its own, as mapped tasks do, it leaves alone until it
    # kills the process half a minute later; so these look for themselves.
    watch = None
    if waiting is not None and threading.current_thread() is not threading.main_thread():
        watch = asyncio.create_task(_end_with(run, waiting))
    try:
        yield
    except asyncio.CancelledError:
        with anyio.move_on_after(_GIVE_UP_S, shield=True):
            # A run that ends for any other reason keeps its jobs.
            if await _is_cancelled(run, fresh=True) and (bought := await _bought(job, session, run)) is not None:
                answer = await session.cancel(bought)
                log.warning("The run is cancelled. Job %s of %s: %s", bought.task_id, bought.gateway, answer.message)
        raise
    finally:
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch


async def _bought(job: Job | str, session: Session, run: UUID) -> Job | None:
    """The job that a submit became which was under way; what another run bought is not this one's to cancel."""
    if isinstance(job, Job):
        return job
    entry = await session.journal.latest(job)
    return entry.job if entry is not None and entry.is_open and entry.flow_run_id == str(run) else None


async def _end_with(run: UUID, waiting: asyncio.Task[object]) -> None:
    while not await _is_cancelled(run):  # noqa: ASYNC110 -- a run is cancelled at the server, of which no event of this process hears
        await anyio.sleep(_LOOK_EVERY_S)
    waiting.cancel()
