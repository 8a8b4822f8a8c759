"""`happyhorse demo`: the flow image_to_video_edit against the sandbox, on Prefect's own ephemeral server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.engine.journal import Journal, JournalEntry
from prefect_happyhorse.engine.store import Store

if TYPE_CHECKING:
    from prefect_happyhorse.domain.assets import MediaAsset

__all__ = ["flow_file", "run_demo"]

_STEPS = {"text_to_image": "image", "reference_to_video": "video", "video_edit": "edit"}

# The Prefect server takes 17 to 20 s to start on a small machine; its own limit is 20 s.
_SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}


def flow_file(name: str) -> Path:
    """The file of a flow that comes with the project: in the installed package, or in a checkout beside `src`.

    Args:
        name: The flow's name, for example `"image_to_video_edit"`.

    Returns:
        The file.

    Raises:
        FileNotFoundError: When it is in neither place.

    Example:
        >>> flow_file("batch").name
        'batch.py'
    """
    here = Path(__file__).resolve().parent
    places = [here / "flows" / f"{name}.py", here.parents[1] / "flows" / f"{name}.py"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"The flow {name} is in none of {', '.join(map(str, places))}.")
    return found


def run_demo(output: Path, console: Console) -> None:
    """Make a picture, a video that stars it and an edit of that video, and say where they lie.

    Args:
        output: The folder for the files.
        console: Where to say it.

    Raises:
        GenerationError: When a step fails.
        ImportError: When the sandbox's extra is not installed.
    """
    from prefect_happyhorse.sandbox.server import SandboxServer
    from prefect_happyhorse.sandbox.settings import SandboxSettings

    store = Store(url=str(output))
    console.print("Starting the sandbox: the five gateways on this machine, no account and no coin.")
    with (
        SandboxServer(SandboxSettings(job_s=4.0)) as sandbox,
        _environment({**_SETTINGS, **_gateway(sandbox), "HAPPYHORSE_STORE": store.url}),
    ):
        console.print("Starting Prefect's own ephemeral server: this takes up to half a minute.")
        started = time.monotonic()
        asyncio.run(_run(store, console))
        charged = len(sandbox.ledger())
    console.print(f"The sandbox charged {charged} jobs, one for each step. All in {time.monotonic() - started:.0f} s.")


def _gateway(sandbox: Any) -> dict[str, str]:
    return {"HAPPYHORSE_BASE_URL": sandbox.base_url("happyhorse"), "HAPPYHORSE_API_KEY": "sandbox", "HAPPYHORSE_ACCOUNT": "demo"}


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in (*values, "PREFECT_API_URL")}
    os.environ.update(values)
    # A server that the user is connected to is none of the demo's business.
    os.environ.pop("PREFECT_API_URL", None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


async def _run(store: Store, console: Console) -> None:
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(f"{flow_file('image_to_video_edit')}:image_to_video_edit")
    # The sandbox forgets its jobs when it stops, so every demo buys anew.
    take = int(time.time())
    small: dict[str, Any] = {"resolution": "720p", "duration": 5}
    watching = asyncio.create_task(_watch(store, take, console))
    try:
        chain: Any = await flow(video=small, edit=small, take=take)
    finally:
        watching.cancel()
    console.print(_table([("image", chain.image), ("video", chain.video), ("edit", chain.edit)]))


async def _watch(store: Store, take: int, console: Console) -> None:
    """Say every change in the journal, which is where a job's state is true."""
    said: dict[str, str] = {}
    journal = Journal(store)
    while True:
        for entry in await journal.entries():
            if entry.take == take and said.get(entry.digest) != entry.state:
                said[entry.digest] = entry.state
                console.print(_sentence(entry))
        await asyncio.sleep(0.25)


def _sentence(entry: JournalEntry) -> str:
    step = f"{_STEPS[entry.request.capability]:6}"
    task = "" if entry.job is None else f", task id {entry.job.task_id}"
    said = {
        "intent": f"submitting to {entry.request.model}",
        "submitted": f"{JobStatus.RUNNING.value} on {entry.request.model}{task}",
        "succeeded": "finished, downloading",
        "kept": f"kept at {'' if entry.asset is None else entry.asset.uri.removeprefix('file://')}",
    }
    return f"  {step} {said.get(entry.state, entry.state)}"


def _table(assets: list[tuple[str, MediaAsset]]) -> Table:
    table = Table("step", "model", "task id", "seconds", "file", title="What the flow made")
    for step, asset in assets:
        took = (asset.finished_at - asset.submitted_at).total_seconds() if asset.finished_at and asset.submitted_at else 0.0
        table.add_row(step, asset.model, asset.task_id, f"{took:.1f}", asset.uri.removeprefix("file://"))
    return table
