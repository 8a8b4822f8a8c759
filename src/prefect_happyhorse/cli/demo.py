"""`happyhorse demo`: the flow image_to_video_edit against the sandbox, on Prefect's own ephemeral server."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click
from rich.console import Console
from rich.table import Table

from prefect_happyhorse.cli.output import console, errors, json_option, print_json
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.store import Store

if TYPE_CHECKING:
    from prefect_happyhorse.cli.schema import Demo
    from prefect_happyhorse.domain.assets import MediaAsset

__all__ = ["demo", "flow_file"]

_STEPS = {"text_to_image": "image", "reference_to_video": "video", "video_edit": "edit"}

# The Prefect server takes 17 to 20 s to start on a small machine; its own limit is 20 s.
_SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The run keeps its log for the UI; the terminal is for what the demo says itself.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
}
_ELSEWHERE = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
"""What would lead to another Prefect than the demo's own."""


def flow_file(name: str) -> Path:
    """The file of a flow that comes with the project: in the installed package, or in a checkout beside `src`.

    Example:
        >>> flow_file("batch").name
        'batch.py'
    """
    here = Path(__file__).resolve().parents[1]
    places = [here / "flows" / f"{name}.py", here.parents[1] / "flows" / f"{name}.py"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"The flow {name} is in none of {', '.join(map(str, places))}.")
    return found


@click.command()
@click.option(
    "--output",
    default=Path("demo"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for its files and its Prefect, apart from any store of yours.",
)
@json_option()
def demo(output: Path, *, as_json: bool) -> None:
    """Run the flow image_to_video_edit against the sandbox: no account, no server, no cost."""
    with errors():
        done = _run_demo(output, console(stderr=as_json))
    if as_json:
        print_json(done)


def _run_demo(output: Path, console: Console) -> Demo:
    """Make a picture, a video that stars it and an edit of that video, and say where they lie."""
    from prefect_happyhorse.sandbox.http.server import SandboxServer
    from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings

    store = Store(url=str(output))
    # A Prefect of the demo's own: in the user's there may be a block named after the gateway, and the demo would pay with it.
    home = output.absolute() / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    console.print("Starting the sandbox: every gateway on this machine, no account and no cost.")
    # The demo must not reach a server that the user is connected to.
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE} | _SETTINGS
    environment |= {"HAPPYHORSE_STORE": store.url, "PREFECT_HOME": str(home)}
    environment |= {"HAPPYHORSE_API_KEY": "sandbox", "HAPPYHORSE_ACCOUNT": "demo"}
    with SandboxServer(SandboxSettings(job_s=4.0, long_side_px=1280)) as sandbox, patch.dict(os.environ, environment, clear=True):
        os.environ["HAPPYHORSE_BASE_URL"] = sandbox.base_url("happyhorse")
        console.print("Starting Prefect's own ephemeral server: this takes up to half a minute.")
        started = time.monotonic()
        assets = asyncio.run(_run(store, console))
        charged = len(sandbox.ledger())
    console.print(f"The sandbox charged {charged} jobs, one for each step. All in {time.monotonic() - started:.0f} s.")
    console.print("Its pictures in a browser, at the run's artifacts, are served by:")
    # As it can be typed here: Prefect's name, or where it lies beside this Python.
    beside = Path(sys.executable).with_name("prefect")
    command = "prefect" if shutil.which("prefect") or not beside.is_file() else shlex.quote(os.path.relpath(beside))
    console.print(f"PREFECT_HOME={shlex.quote(str(home))} {command} server start", soft_wrap=True)
    return {"charged": charged, "assets": assets, "prefect_home": str(home)}


async def _run(store: Store, console: Console) -> dict[str, MediaAsset]:
    from prefect.flows import load_flow_from_entrypoint

    from prefect_happyhorse.blocks import GatewayCredentials

    flow = load_flow_from_entrypoint(f"{flow_file('image_to_video_edit')}:image_to_video_edit")
    # The sandbox forgets its jobs when it stops, so every demo buys again.
    take = int(time.time())
    small: dict[str, Any] = {"resolution": "720p", "duration": 5}
    session = Session(GatewayCredentials.from_environment("happyhorse").to_account(), store)
    said: set[str] = set()

    def say(entry: JournalEntry, what: str) -> None:
        line = f"  {_STEPS[entry.request.capability]:6} {what}"
        if line not in said:
            said.add(line)
            console.print(line, soft_wrap=True)

    async def look() -> None:
        """Say what is new in the journal, which is where a job's state is true, and how far the gateway says that a job is."""
        for entry in (await session.journal.entries()).entries:
            if entry.take == take:
                say(entry, _sentence(entry))
                if entry.state == "submitted" and entry.job is not None:
                    progress = (await session.poll_once(entry.job)).progress
                    if progress:
                        say(entry, f"{'#' * round(progress * 20):20} {progress:4.0%}")

    async def watch() -> None:
        while True:
            await look()
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    try:
        chain: Any = await flow(video=small, edit=small, take=take)
    finally:
        watching.cancel()
    await look()
    console.print(_table(chain))
    return {step: getattr(chain, step) for step in _STEPS.values()}


def _sentence(entry: JournalEntry) -> str:
    said = {
        "intent": f"submitting to {entry.request.model}",
        "submitted": f"accepted by {entry.request.model}{'' if entry.job is None else f', task id {entry.job.task_id}'}",
        "succeeded": "finished, downloading",
        "kept": f"kept at {'' if entry.asset is None else _file(entry.asset)}",
    }
    return said.get(entry.state, entry.state)


def _table(chain: Any) -> Table:
    table = Table("step", "model", "task id", "seconds", title="What the flow made")
    # A path that is cut short opens nothing, so a long one goes on in the next line.
    table.add_column("file", overflow="fold")
    for step in _STEPS.values():
        asset: MediaAsset = getattr(chain, step)
        job = asset.job
        table.add_row(step, job and job.model, job and job.task_id, f"{asset.elapsed_s or 0.0:.1f}", _file(asset))
    return table


def _file(asset: MediaAsset) -> str:
    """Where an asset lies, as short as it can be said from here."""
    path = asset.uri.removeprefix("file://")
    return min(path, os.path.relpath(path), key=len)
