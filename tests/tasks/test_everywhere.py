"""The tasks in every place where people call them: sync flows, scripts and notebook cells."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect import flow

from prefect_happyhorse import (
    Job,
    MediaAsset,
    TextToImage,
    download_sync,
    generate,
    generate_sync,
    open_jobs,
    poll_once,
    poll_sync,
    submit,
    submit_sync,
)
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Prefect says so of its own log lines about every task that runs outside of a flow.
    pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted to send logs:UserWarning"),
]


def horse(number: int = 0) -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=f"Horse {number}")


def test_a_script_without_a_flow(sandbox_env: SandboxServer) -> None:
    """The twins one by one and all in one, called as functions: the same asset, paid for once."""
    asset = download_sync(poll_sync(submit_sync(horse(), "happyhorse"), "happyhorse"), "happyhorse")
    assert Path(asset.uri.removeprefix("file://")).stat().st_size == asset.bytes
    assert generate_sync(horse(), "happyhorse") == asset
    assert generate(horse(), "happyhorse") == asset

    async def main() -> MediaAsset:
        return await generate(horse(), "happyhorse")

    assert asyncio.run(main()) == asset
    assert len(sandbox_env.ledger()) == 1


async def test_a_notebook_cell(sandbox_env: SandboxServer) -> None:
    """Where an event loop runs already, a cell awaits the task; the sync twin works there too, and neither gives a coroutine."""
    awaited = await generate(horse(), "happyhorse")
    assert isinstance(awaited, MediaAsset)
    assert generate_sync(horse(), "happyhorse") == awaited
    job = await submit(horse(), "happyhorse")
    assert isinstance(job, Job)
    assert (await poll_once(job, "happyhorse")).status.final
    assert await open_jobs() == []
    assert len(sandbox_env.ledger()) == 1


def test_a_sync_flow_without_a_single_await(sandbox_env: SandboxServer) -> None:
    """A direct call gives the asset, .submit() a future of it, .map() many."""

    @flow
    def many() -> list[MediaAsset]:
        direct = generate_sync(horse(0), "happyhorse")
        submitted = generate_sync.submit(horse(1), "happyhorse").result()
        mapped = generate.map([horse(2), horse(3)], "happyhorse").result()
        return [direct, submitted, *mapped]

    assert [asset.job.prompt for asset in many()] == [f"Horse {number}" for number in range(4)]
    assert len(sandbox_env.ledger()) == 4
