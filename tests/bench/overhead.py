"""What a job costs beyond the provider's own time: `make bench`.

Each figure stands beside a baseline of the same run: a flow of three empty Prefect tasks per job on the same server, and `import prefect`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REACH = 2.0
IMPORT_REACH_S = 0.3


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def process(arguments: list[str], health: str, environment: dict[str, str]) -> Iterator[None]:
    """A process that is up, and down again afterwards."""
    running = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(health, timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                if running.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{arguments} did not come up") from None
                time.sleep(0.2)
        yield
    finally:
        running.terminate()
        running.wait(30)


async def measure(counts: list[int], rounds: int, folder: str) -> list[tuple[int, float, float, float]]:
    from prefect import flow, task

    from prefect_happyhorse import GatewayCredentials, MediaStore, TextToImage, generate

    credentials = GatewayCredentials.from_environment("happyhorse")
    store = MediaStore(url=folder)

    @task
    async def empty(value: int) -> int:
        return value

    async def three(value: int) -> int:
        return await empty(await empty(await empty(value)))

    @flow(name="three-empty-tasks")
    async def baseline(count: int) -> None:
        await asyncio.gather(*(three(value) for value in range(count)))

    @flow(name="generate")
    async def ours(count: int, take: int) -> None:
        requests = [TextToImage(model="gpt-image-2", prompt=f"Horse {number}") for number in range(count)]
        await asyncio.gather(*(generate(request, credentials, store, take=take) for request in requests))

    await baseline(1)
    await ours(1, 1)
    rows: list[tuple[int, float, float, float]] = []
    take = 1
    for count in counts:
        empties: list[float] = []
        jobs: list[float] = []
        for _ in range(rounds):
            take += 1
            started = time.perf_counter()
            await baseline(count)
            empties.append(time.perf_counter() - started)
            started = time.perf_counter()
            await ours(count, take)
            jobs.append(time.perf_counter() - started)
        ratio = statistics.median(job / empty for job, empty in zip(jobs, empties, strict=True))
        rows.append((count, statistics.median(empties), statistics.median(jobs), ratio))
    return rows


def import_times(runs: int) -> tuple[float, float]:
    """Seconds to import Prefect, and to import all of this package after it: each the median of fresh processes."""
    code = (
        "import time; a = time.perf_counter(); import prefect, prefect.artifacts, prefect.blocks.core, prefect.cache_policies;"
        " b = time.perf_counter(); import prefect_happyhorse; from prefect_happyhorse import generate, GatewayCredentials;"
        " c = time.perf_counter(); print(b - a, c - b)"
    )
    pairs = [
        [float(word) for word in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()]
        for _ in range(runs)
    ]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        server, sandbox = free_port(), free_port()
        os.environ.update(
            PREFECT_HOME=str(Path(scratch, "prefect")),
            PREFECT_API_URL=f"http://127.0.0.1:{server}/api",
            PREFECT_LOGGING_LEVEL="ERROR",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            HAPPYHORSE_API_KEY="bench",
            HAPPYHORSE_BASE_URL=f"http://127.0.0.1:{sandbox}/happyhorse",
        )
        serve = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(server), "--no-ui"]
        emulate = [sys.executable, "-m", "prefect_happyhorse.sandbox", "--port", str(sandbox), "--job-s", "0", "--media", "tiny"]
        with (
            process(serve, f"http://127.0.0.1:{server}/api/health", dict(os.environ)),
            process(emulate, f"http://127.0.0.1:{sandbox}/_sandbox/ledger", dict(os.environ)),
        ):
            rows = asyncio.run(measure(arguments.counts, arguments.rounds, str(Path(scratch, "outputs"))))
    prefect_s, ours_s = import_times(arguments.rounds)
    print(f"{'jobs':>6} {'three empty tasks':>20} {'generate':>12} {'ratio':>8}   reach {REACH:g}")
    for count, empties, jobs, ratio in rows:
        print(f"{count:6} {empties:18.3f} s {jobs:10.3f} s {ratio:7.2f}x   {'holds' if ratio <= REACH else 'misses'}")
    verdict = "holds" if ours_s <= IMPORT_REACH_S else "misses"
    print(f"import prefect {prefect_s:.3f} s; then prefect_happyhorse {ours_s:+.3f} s   reach {IMPORT_REACH_S:g} s: {verdict}")


if __name__ == "__main__":
    main()
