"""A person looks at the picture before the expensive steps are paid for."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStateName
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import State

from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SMALL = {"resolution": "720p", "duration": 3}


@pytest.fixture(scope="module")
def chain() -> Flow[Any, Any]:
    return load_flow_from_entrypoint(f"{flow_file('image_to_video_edit')}:image_to_video_edit")


async def paused_run() -> UUID:
    """The run that waits for somebody."""
    async with get_client() as client:
        while True:
            waiting = FlowRunFilter(state={"name": FlowRunFilterStateName(any_=["Paused"])})  # pyright: ignore[reportArgumentType]
            if runs := await client.read_flow_runs(flow_run_filter=waiting):
                return runs[0].id
            await asyncio.sleep(0.1)


async def answered(chain: Flow[Any, Any], *decisions: str) -> State[Any]:
    """A run, and what a person answers each time it asks."""
    running = asyncio.create_task(chain(video=SMALL, edit=SMALL, approve_image=True, return_state=True))
    async with get_client() as client:
        for decision in decisions:
            answer = await client.resume_flow_run(await paused_run(), run_input={"decision": decision})
            assert answer.status.value == "ACCEPT"
            await asyncio.sleep(0)
    return await running


async def test_a_yes_goes_on_with_the_picture(sandbox_env: SandboxServer, chain: Flow[Any, Any]) -> None:
    """Three charges, and the video is made from the picture that was shown."""
    state = await answered(chain, "go on")
    made = await state.result()
    assert [entry.task_id for entry in sandbox_env.ledger()] == [made.image.job.task_id, made.video.job.task_id, made.edit.job.task_id]


async def test_a_no_buys_another_picture_and_asks_again(sandbox_env: SandboxServer, chain: Flow[Any, Any]) -> None:
    """The second variation is what the video stars; the first stays kept."""
    state = await answered(chain, "another picture", "go on")
    made = await state.result()
    first, second, *_ = sandbox_env.ledger()
    assert (first.capability, second.capability) == ("text_to_image", "text_to_image")
    assert made.image.job.task_id == second.task_id
    assert len(sandbox_env.ledger()) == 4


async def test_a_stop_buys_nothing_more(sandbox_env: SandboxServer, chain: Flow[Any, Any]) -> None:
    """The run fails with where the picture lies, and the expensive steps are not paid for."""
    state = await answered(chain, "stop")
    with pytest.raises(Exception, match=r"not approved. It is kept at file://"):
        await state.result()
    assert len(sandbox_env.ledger()) == 1


async def test_nobody_answers(sandbox_env: SandboxServer, chain: Flow[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The log says for whom the run waits; after the time that was given it fails; the picture is paid for, and nothing else."""
    state = await chain(video=SMALL, edit=SMALL, approve_image=True, approval_timeout_s=1, return_state=True)
    assert state.is_failed()
    assert "Waits for a person to resume this run with a decision. Take 1 is kept at file://" in caplog.text
    assert len(sandbox_env.ledger()) == 1
