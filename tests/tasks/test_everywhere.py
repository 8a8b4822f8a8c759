"""The tasks in every place where people call them: sync flows, scripts and notebook cells."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import flow, task
from prefect.exceptions import TerminationSignal
from prefect.tasks import Task

import prefect_happyhorse
from prefect_happyhorse import (
    Job,
    JournalEntry,
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
from prefect_happyhorse.tasks.dual import wait_for

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


@pytest.mark.parametrize("in_a_run", [True, False])
async def test_open_jobs_tell_what_cannot_be_read(
    in_a_run: bool, sandbox_env: SandboxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that may stand for a paid job is an error in the log, with what to do; the others are returned."""
    jobs = [await submit(horse(number), "happyhorse") for number in range(2)]
    file = tmp_path / "outputs" / "journal" / "ee" / f"{'ee' * 32}.3.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("{")

    @flow
    async def look() -> list[JournalEntry]:
        return await open_jobs()

    for _ in range(2):
        caplog.clear()
        with caplog.at_level("ERROR"):
            found = await (look if in_a_run else open_jobs)()
        assert [entry.job for entry in found] == jobs
        (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert f"{file} cannot be read" in told.getMessage()
        assert f"happyhorse jobs forget {file.name}" in told.getMessage()
        assert "It is left out, and may stand for a paid job." in told.getMessage()


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


@pytest.mark.parametrize("of", ["awaiting", "waiting"])
def test_a_task_inside_of_a_task(sandbox_env: SandboxServer, of: str) -> None:
    """The task around the call decides, whatever the flow around that is."""

    @task
    def waits() -> MediaAsset:
        return generate(horse(), "happyhorse")

    @task
    async def awaits() -> MediaAsset:
        return await generate(horse(), "happyhorse")

    @flow
    async def awaiting() -> tuple[MediaAsset, MediaAsset]:
        return waits(), await awaits()

    @flow
    def waiting() -> tuple[MediaAsset, MediaAsset]:
        return waits(), awaits.submit().result()

    one, other = asyncio.run(awaiting()) if of == "awaiting" else waiting()
    assert one == other
    assert isinstance(one, MediaAsset)
    assert len(sandbox_env.ledger()) == 1


def test_a_copy_with_options_serves_both_worlds(sandbox_env: SandboxServer) -> None:
    """It has the new options, keeps the others, and is the same kind of task; so does one that was pickled for another process."""
    patient = generate.with_options(name="patient", tags={"slow"}, retries=7)
    assert (patient.name, patient.tags, patient.retries) == ("patient", {"slow"}, 7)
    assert (generate.name, generate.tags, generate.retries) == ("generate", {"happyhorse"}, 0)
    assert (patient.task_run_name, patient.result_serializer) == (generate.task_run_name, "json")
    assert type(pickle.loads(cloudpickle.dumps(patient))) is type(generate)  # noqa: S301 -- our own
    assert submit.with_options(name="slow").retry_condition_fn is submit.retry_condition_fn

    @flow
    def one() -> MediaAsset:
        return patient(horse(), "happyhorse")

    @flow
    async def other() -> MediaAsset:
        return await patient(horse(), "happyhorse")

    assert one() == asyncio.run(other())


def test_a_call_may_ask_for_the_state(sandbox_env: SandboxServer) -> None:
    """return_state and wait_for work in sync code as they do for any task."""

    @flow
    def one() -> Any:
        first = submit(horse(), "happyhorse", return_state=True)
        return generate(horse(), "happyhorse", return_state=True, wait_for=[first])

    assert one.fn.__name__ == "one"
    assert one().name == "Completed"


def test_a_sync_flow_started_in_async_code_waits(sandbox_env: SandboxServer) -> None:
    """The flow decides, although a loop runs in its thread."""

    @flow
    def inner() -> MediaAsset:
        return generate(horse(), "happyhorse")

    @flow
    async def outer() -> MediaAsset:
        return inner()

    assert isinstance(asyncio.run(outer()), MediaAsset)


@pytest.mark.parametrize("ends", [TerminationSignal(signal.SIGTERM), TimeoutError("as Prefect's in the main thread")])
def test_a_signal_lets_what_waits_end_in_good_order(ends: BaseException) -> None:
    """The wait hears of it in its own thread, and has ended before the signal goes on to end the process, or a time-out the run."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            ended.append("cancelled the job")
            raise

    def terminate(*_: object) -> None:
        raise ends

    before = signal.signal(signal.SIGUSR1, terminate)
    threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1)).start()
    started = time.monotonic()
    try:
        with pytest.raises(type(ends)):
            wait_for(wait())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == ["cancelled the job"]
    assert time.monotonic() - started < 10


def test_every_task_serves_both_worlds() -> None:
    """No public task is a plain one, whose direct call in sync code would make a coroutine that nobody awaits."""
    public = [value for name in prefect_happyhorse.__all__ if isinstance(value := getattr(prefect_happyhorse, name), Task)]
    assert len(public) >= 7
    assert {type(one) for one in public} == {type(generate)}
    assert all(inspect.iscoroutinefunction(one.fn) for one in public)
