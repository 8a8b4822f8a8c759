"""A flow run that is cancelled while its submit is on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.blocks import GatewayCredentials
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.runtime import cancellation
from prefect_happyhorse.sandbox import SandboxServer
from prefect_happyhorse.tasks import submit as submitting

REQUEST = ride("infiflow")


@pytest.mark.parametrize(
    ("is_cancelled", "bought_by_this_run", "state"),
    [(True, True, "cancelled"), (False, True, "submitted"), (True, False, "submitted")],
    ids=["cancelled", "crashed", "bought by another run"],
)
async def test_a_job_whose_submit_is_under_way_is_cancelled_with_its_run(
    sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_cancelled: bool, bought_by_this_run: bool, state: str
) -> None:
    """Its answer is waited for, since only there stands the id; a run that crashed keeps it, and so does a run that did not buy it."""
    run, other = uuid4(), uuid4()

    async def say(asked: UUID, *, fresh: bool = False) -> bool:
        return is_cancelled

    monkeypatch.setattr(cancellation, "_is_cancelled", say)
    monkeypatch.setattr(cancellation, "flow_run_id", lambda: run)
    monkeypatch.setattr(submitting, "flow_run_id", lambda: run if bought_by_this_run else other)
    sandbox_env.settings(job_s=600)
    sandbox_env.fault(at="submit", kind="stall_after", seconds=1, times=1)
    session = Session(GatewayCredentials.from_environment("infiflow").to_account(), Store(str(tmp_path / "outputs")))
    task = asyncio.create_task(submitting.submit_in(session, REQUEST, take=1, on_uncertain="raise", budget=None))
    while not sandbox_env.ledger():  # noqa: ASYNC110 -- the sandbox serves in a thread of its own
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (charge,) = sandbox_env.ledger()
    (entry,) = (await session.journal.entries()).entries
    assert entry.job is not None
    assert (entry.job.task_id, entry.state, charge.state) == (charge.task_id, state, {"submitted": "queued"}.get(state, state))
