"""One load in a process of its own, so that its time and memory are its own.

`python -m tests.bench.load KIND JOBS SECONDS URL FOLDER` prints what it took as one line of JSON; with a number behind them the sandbox
answers that many polls of an account in a second, and refuses the others, and ours goes by a gateway that documents such a limit. Each
kind waits for so many jobs at once, each of so many seconds at the sandbox:

- `generate`: this package's task, in a flow, of an account that has made twenty such jobs before.
- `many`: the same, all in one task run of `generate_many`.
- `empty`: a flow of three empty Prefect tasks for each job, of which the second sleeps as long as the job takes.
- `script`: asyncio and httpx alone: submit, ask every 5 s, download; nothing is written down.
- `engine`: this package without Prefect.
- `threads`: DashScope's own package, one thread for each job.
- `again`: the same, and where a poll was refused it waits five seconds and asks again, as a user does who has met the limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

MODEL = "happyhorse-1.0-r2v"
BEFORE = 20
LEARN = {"generate", "many", "engine"}
REFERENCE = "https://media.example.com/horse.png"

Run = Callable[[int], Awaitable[int]]
"""Waits for so many jobs, and says how many of them failed."""


def body_of(number: int) -> dict[str, Any]:
    """What DashScope's dialect wants for one video."""
    return {
        "model": MODEL,
        "input": {"prompt": f"[Image 1] runs, {number}", "media": [{"type": "reference_image", "url": REFERENCE}]},
        "parameters": {"resolution": "720P", "ratio": "16:9", "duration": 5},
    }


def requests_of(jobs: int) -> list[Any]:
    from prefect_happyhorse import ReferenceToVideo

    return [
        ReferenceToVideo(
            model=MODEL, prompt=f"[Image 1] runs, {number}", references=[REFERENCE], resolution="720P", aspect_ratio="16:9", duration=5
        )
        for number in range(jobs)
    ]


@dataclass(frozen=True)
class Load:
    """What a kind of load is given.

    Args:
        job_s: How long a job takes, in seconds.
        gateway: By which ours goes.
    """

    job_s: float
    url: str
    folder: str
    gateway: str


def _of_ours(load: Load, make: Callable[..., Awaitable[int]]) -> Run:
    from prefect import flow

    from prefect_happyhorse import GatewayCredentials, MediaStore

    credentials = GatewayCredentials(gateway=load.gateway, api_key="bench", base_url=f"{load.url}/{load.gateway}")
    store = MediaStore(url=load.folder)

    @flow(name="bench")
    async def run(jobs: int, take: int) -> int:
        return await make(requests_of(jobs), take, credentials, store)

    takes = iter(range(1, 1000))
    return lambda jobs: run(jobs, next(takes))


def generate(load: Load) -> Run:
    from prefect_happyhorse import generate as make

    async def together(requests: list[Any], take: int, *where: Any) -> int:
        return await _failures(make(request, *where, take=take) for request in requests)

    return _of_ours(load, together)


def many(load: Load) -> Run:
    from prefect_happyhorse import RowResult, generate_many

    async def in_one(requests: list[Any], take: int, *where: Any) -> int:
        asked = [RowResult(row=row, id=str(row), request=request, take=take) for row, request in enumerate(requests, start=1)]
        rows = await generate_many(asked, *where, concurrency=len(asked))
        return sum(row.state != "kept" for row in rows)

    return _of_ours(load, in_one)


def empty(load: Load) -> Run:
    from prefect import flow, task

    @task
    async def submit(number: int) -> int:
        return number

    @task
    async def poll(number: int) -> int:
        await asyncio.sleep(load.job_s)
        return number

    @task
    async def download(number: int) -> int:
        return number

    async def three(number: int) -> int:
        return await download(await poll(await submit(number)))

    @flow(name="bench-empty")
    async def run(jobs: int) -> int:
        return await _failures(three(number) for number in range(jobs))

    return run


def engine(load: Load) -> Run:
    from prefect_happyhorse.engine.jobs.poll import Poller
    from prefect_happyhorse.engine.jobs.prepare import prepare
    from prefect_happyhorse.engine.jobs.results import OutputStore
    from prefect_happyhorse.engine.jobs.shared import PROCESS
    from prefect_happyhorse.engine.jobs.submit import Submitter
    from prefect_happyhorse.engine.storage.store import Store
    from prefect_happyhorse.gateways import Account

    account = Account(gateway=load.gateway, base_url=f"{load.url}/{load.gateway}", key=SecretStr("bench"))
    store = Store(url=load.folder)

    async def one(request: Any, take: int) -> None:
        job = await Submitter(store=store).submit(await prepare(request, account, take=take, store=store))
        await OutputStore(account=account, store=store).store_outputs(await Poller(account=account, store=store).poll(job))

    takes = iter(range(1, 1000))

    async def run(jobs: int) -> int:
        take = next(takes)
        async with PROCESS.connections.client():
            return await _failures(one(request, take) for request in requests_of(jobs))

    return run


def script(load: Load) -> Run:
    base, headers = f"{load.url}/infiflow/dashscope/api/v1", {"Authorization": "Bearer bench", "X-DashScope-Async": "enable"}

    async def one(client: httpx.AsyncClient, number: int) -> None:
        answer = await client.post(f"{base}/services/aigc/video-generation/video-synthesis", json=body_of(number), headers=headers)
        task_id = answer.raise_for_status().json()["output"]["task_id"]
        while True:
            output = (await client.get(f"{base}/tasks/{task_id}", headers=headers)).raise_for_status().json()["output"]
            if output["task_status"] == "SUCCEEDED":
                break
            await asyncio.sleep(5)
        async with client.stream("GET", output["video_url"]) as response:
            # As such scripts are written: it blocks the loop, which costs little with a file as small as these.
            with Path(load.folder, f"{task_id}.mp4").open("wb") as file:  # noqa: ASYNC230
                async for chunk in response.aiter_bytes():
                    file.write(chunk)

    async def run(jobs: int) -> int:
        Path(load.folder).mkdir(parents=True, exist_ok=True)
        # A connection that rests for the five seconds between two polls is closed by the server just when it is wanted again.
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=2.0)
        async with httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(60, pool=None)) as client:
            return await _failures(one(client, number) for number in range(jobs))

    return run


async def _failures(jobs: Iterable[Awaitable[object]]) -> int:
    """How many of these failed; the first says why on standard error."""
    failed = [error for error in await asyncio.gather(*jobs, return_exceptions=True) if isinstance(error, BaseException)]
    for error in failed[:1]:
        print(repr(error), file=sys.stderr)
    return len(failed)


def threads(load: Load) -> Run:
    return _threads(load, tries=1)


def again(load: Load) -> Run:
    return _threads(load, tries=1000)


def _threads(load: Load, *, tries: int) -> Run:
    import dashscope
    from dashscope import VideoSynthesis

    dashscope.base_http_api_url = f"{load.url}/infiflow/dashscope/api/v1"

    def one(number: int, client: httpx.Client) -> None:
        body = body_of(number)
        given = {"model": body["model"], "prompt": body["input"]["prompt"], "media": body["input"]["media"], **body["parameters"]}
        task_id = VideoSynthesis.async_call(api_key="bench", **given).output.task_id
        for _ in range(tries):
            # This and the line above are what its `call` does.
            done = VideoSynthesis.wait(task_id, api_key="bench")
            if done.status_code == 200 or tries == 1:
                break
            time.sleep(5)
        with client.stream("GET", done.output.video_url) as response, Path(load.folder, f"{task_id}.mp4").open("wb") as file:
            file.writelines(response.iter_bytes())

    async def run(jobs: int) -> int:
        Path(load.folder).mkdir(parents=True, exist_ok=True)
        failed: list[BaseException] = []
        with httpx.Client(timeout=httpx.Timeout(60, pool=None)) as client:

            def work(number: int) -> None:
                try:
                    one(number, client)
                except BaseException as error:  # noqa: BLE001 -- told at the end
                    failed.append(error)

            running = [threading.Thread(target=work, args=(number,)) for number in range(jobs)]
            for thread in running:
                thread.start()
            for thread in running:
                await asyncio.to_thread(thread.join)
        return len(failed)

    return run


KINDS: dict[str, Callable[[Load], Run]] = {
    "generate": generate,
    "many": many,
    "empty": empty,
    "engine": engine,
    "script": script,
    "threads": threads,
    "again": again,
}


def set_sandbox(url: str, **settings: float | None) -> None:
    """How the sandbox behaves from now on."""
    httpx.patch(f"{url}/_sandbox/settings", json=settings).raise_for_status()


def resident_bytes() -> int:
    """What the process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def measure(kind: str, jobs: int, job_s: float, url: str, folder: str, queries_per_s: float | None) -> dict[str, float]:
    # The first of everything is slower: imports, connections, tables. Only those that learn from it need jobs as long as the measured ones.
    before_s = job_s if kind in LEARN else min(job_s, 1.0)
    gateway = "happyhorse" if queries_per_s is None else "infiflow"
    set_sandbox(url, job_s=before_s, queries_per_s=queries_per_s)
    first = KINDS[kind](Load(before_s, url, folder, gateway))
    await first(BEFORE)
    set_sandbox(url, job_s=job_s)
    run = first if kind in LEARN else KINDS[kind](Load(job_s, url, folder, gateway))
    before, cpu_s, started = resident_bytes(), time.process_time(), time.perf_counter()
    failed = await run(jobs)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_s,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        "failed": failed,
    }


if __name__ == "__main__":
    kind, jobs, seconds, url, folder, *limit = sys.argv[1:]
    queries_per_s = float(limit[0]) if limit else None
    print(json.dumps(asyncio.run(measure(kind, int(jobs), float(seconds), url, folder, queries_per_s))))
