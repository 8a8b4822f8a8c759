"""Everything that is measured, in one run: `make bench`; `python -m tests.bench --small` tries the same with little, and judges nothing.

Each figure is measured in a process of its own, beside a baseline in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import downloads, journal, schedule
from tests.bench.report import Figure, plot, table, write_into
from tests.bench.services import Services, journal_on_s3, moto, prefect_server, process, sandbox
from tests.e2e.stack import free_port

KIB, MIB = 1024, 1024**2
HAPPYHORSE = [sys.executable, "-m", "prefect_happyhorse.cli"]
FIXED_S = 5.0
PROVIDERS_LIMIT = 20.0
USERS = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of a user, whose Python compiles our source once and not at every start."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        jobs: How many jobs at once.
        threads: With how many the official package is tried.
        job_s: How long the sandbox takes for a job, in seconds.
        large: Length of the large download in bytes.
        small: Length of the small ones in bytes.
        files: How many small ones.
        entries: How many jobs the journal holds that is read whole.
        many: How many jobs the large journal holds.
        many_open: How many of them are open.
        simulated: How many jobs are simulated.
        rounds: How often short measurements are repeated, the median counts.
    """

    jobs: tuple[int, ...] = (1, 10, 100, 1000)
    threads: tuple[int, ...] = (100, 1000)
    job_s: float = 20.0
    large: int = 1024 * MIB
    small: int = 5 * MIB
    files: int = 200
    entries: int = 10_000
    many: int = 100_000
    many_open: int = 1000
    simulated: int = 3000
    rounds: int = 3


LITTLE = Size(
    jobs=(1, 3),
    threads=(3,),
    job_s=0.5,
    large=8 * MIB,
    small=MIB,
    files=4,
    entries=100,
    many=100,
    many_open=10,
    simulated=50,
    rounds=1,
)


def module(name: str, *arguments: object, environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """What a module of this package measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{name}", *map(str, arguments)],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} {arguments} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def seconds(arguments: list[str] | str, environment: Mapping[str, str] = os.environ) -> float:
    """How long a command takes."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = time.perf_counter()
    subprocess.run(arguments, check=True, shell=isinstance(arguments, str), env=dict(environment), **quiet)
    return time.perf_counter() - started


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure_loads(size: Size, scratch: Path) -> tuple[dict[tuple[str, int], dict[str, float]], dict[tuple[str, int], float]]:
    """Every kind of load for every number of jobs, and what the Prefect server spent on a job of each, in seconds."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    served: dict[tuple[str, int], float] = {}
    options = ("--job-s", str(size.job_s), "--media", "tiny", "--check-inputs", "never")
    with sandbox(*options) as url, prefect_server(scratch / "prefect") as server:
        for jobs in size.jobs:
            kinds = [
                "empty",
                "generate",
                *(["script"] if jobs == max(size.jobs) else []),
                *(["many", "engine", "threads"] if jobs in size.threads else []),
            ]
            for kind in kinds:
                before = server.cpu_s()
                arguments = (kind, jobs, size.job_s, url, scratch / f"{kind}-{jobs}")
                found[kind, jobs] = module("load", *arguments, environment=server.environment)
                served[kind, jobs] = (server.settled_cpu_s() - before) / jobs
                say(f"{jobs:5} {kind:9} {found[kind, jobs]['wall_s']:8.2f} s")
    return found, served


def overhead(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Wall time and memory of many jobs at once."""
    loads, served = measure_loads(size, scratch)
    figures: list[Figure] = []
    for jobs in size.jobs:
        ours, empty = loads["generate", jobs]["wall_s"], loads["empty", jobs]["wall_s"]
        figures.append(
            Figure(
                f"{jobs} jobs of {size.job_s:g} s at once, `generate`",
                f"three empty Prefect tasks a job: {empty:.1f} s",
                "1.15 x",
                f"{ours:.1f} s, **{ours / empty:.2f} x**",
                ours <= 1.15 * empty,
            )
        )
    for jobs in size.threads:
        ours, empty = loads["many", jobs], loads["empty", jobs]
        more = (ours["bytes"] - empty["bytes"]) / KIB / jobs
        many_ms, empty_ms = (1000 * served[kind, jobs] for kind in ("many", "empty"))
        figures.append(
            Figure(
                f"{jobs} jobs of {size.job_s:g} s at once, `generate_many`",
                f"three empty Prefect tasks a job: {empty['wall_s']:.1f} s, {empty_ms:.0f} ms of the server's processor a job",
                "1.15 x, 10 ms, 50 KiB more a job",
                f"{ours['wall_s']:.1f} s, **{ours['wall_s'] / empty['wall_s']:.2f} x**, **{many_ms:.0f} ms**, **{more:.0f} KiB** more",
                ours["wall_s"] <= 1.15 * empty["wall_s"] and many_ms <= 10 and more <= 50,
            )
        )
    most = max(size.jobs)
    script, engine = loads["script", most], loads["engine", most]
    own_ms = 1000 * (engine["cpu_s"] - script["cpu_s"]) / most
    figures.append(
        Figure(
            f"{most} jobs without Prefect",
            f"asyncio and httpx alone: {script['wall_s']:.1f} s, {1000 * script['cpu_s'] / most:.0f} ms a job",
            "25 ms of our own processor time a job",
            f"{engine['wall_s']:.1f} s, **{own_ms:.0f} ms** more a job",
            own_ms <= 25,
        )
    )
    for jobs in size.threads:
        threads = loads["threads", jobs]
        for kind, what in (("generate", "`generate`"), ("many", "`generate_many`"), ("engine", "the same without Prefect")):
            if (kind, jobs) in loads:
                ours = loads[kind, jobs]
                figures.append(
                    Figure(
                        f"{jobs} jobs at once, {what}",
                        f"`dashscope` in as many threads: {threads['wall_s']:.1f} s, {threads['bytes'] / KIB / jobs:.0f} KiB a job",
                        "less of both",
                        f"{ours['wall_s']:.1f} s, {ours['bytes'] / KIB / jobs:.0f} KiB a job",
                        ours["wall_s"] < threads["wall_s"] and ours["bytes"] < threads["bytes"],
                    )
                )
    more = (loads["generate", most]["bytes"] - loads["empty", most]["bytes"]) / KIB / most
    figures.append(
        Figure(
            f"peak memory of {most} jobs",
            f"three empty Prefect tasks a job: {loads['empty', most]['bytes'] / KIB / most:.0f} KiB a job",
            "50 KiB more a job",
            f"**{more:.0f} KiB** more a job",
            more <= 50,
        )
    )
    client, server = (1000 * loads["generate", most]["cpu_s"] / most, 1000 * served["generate", most])
    empty_client, empty_server = (1000 * loads["empty", most]["cpu_s"] / most, 1000 * served["empty", most])
    figures.append(
        Figure(
            f"processor time of a job at {most} jobs: worker, Prefect server",
            f"three empty Prefect tasks: {empty_client:.0f} ms, {empty_server:.0f} ms",
            "",
            f"{client:.0f} ms, {server:.0f} ms",
            None,
        )
    )
    lines = {
        "generate beyond the jobs' own time": [(n, loads["generate", n]["wall_s"] - size.job_s) for n in size.jobs],
        "three empty tasks beyond it": [(n, loads["empty", n]["wall_s"] - size.job_s) for n in size.jobs],
    }
    ordered = dict(sorted(lines.items(), key=lambda line: line[1][-1][1]))
    memory = {
        "three empty tasks": [(n, loads["empty", n]["bytes"] / MIB) for n in size.jobs],
        "generate": [(n, loads["generate", n]["bytes"] / MIB) for n in size.jobs],
    }
    return figures, plot("Seconds", "s", ordered) + "\n\n" + plot("Memory", "MiB", memory)


def polling(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Polls and delays, on a simulated clock."""
    figures: list[Figure] = []
    for sigma in (0.1, 0.2, 0.3, 0.5):
        durations_s = schedule.lognormal(size.simulated + 200, sigma)
        waited = schedule.one_after_another(durations_s, learn=200)
        fixed = schedule.fixed_polls(durations_s[200:], FIXED_S)
        polls = statistics.mean(waited.polls)
        late = max(waited.delays_s)
        figures.append(
            Figure(
                f"polls of a job, lognormal durations around {schedule.MEDIAN_S:g} s, sigma {sigma:g}",
                f"every {FIXED_S:g} s: {fixed:.1f} polls",
                "a third of the polls, 3 % mean delay, 15 s at most",
                f"{polls:.1f} polls, **{polls / fixed:.2f} x**, {100 * waited.mean_delay:.1f} % mean delay, {late:.1f} s at most",
                polls <= fixed / 3 and waited.mean_delay <= 0.03 and late <= 15,
            )
        )
    for jobs in (1000, 10_000, 100_000):
        waited = schedule.together(schedule.lognormal(jobs, 0.2), per_s=PROVIDERS_LIMIT, sigma=0.2)
        figures.append(
            Figure(
                f"{jobs} jobs of one account submitted together, {PROVIDERS_LIMIT:g} polls a second (simulated)",
                "the provider's limit",
                f"never above {PROVIDERS_LIMIT:g} a second, no job starved",
                f"{waited.most_in_a_second} a second at most, {statistics.mean(waited.polls):.1f} polls a job, seen"
                f" {statistics.mean(waited.delays_s):.0f} s late on average; the longest wait for a poll {waited.longest_gap_s:.0f} s",
                waited.most_in_a_second <= PROVIDERS_LIMIT and waited.longest_gap_s <= jobs / PROVIDERS_LIMIT,
            )
        )
    return figures, ""


def fetching(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Downloads to a disk and to S3."""
    figures = [_large(size, scratch), *_many(size, scratch)]
    return figures, ""


def _served(path: Path, length: int) -> Services:
    downloads.make_video(path, length)
    url = f"http://127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "tests.bench.downloads", "serve", url.rpartition(":")[2], str(path)]
    return Services(url, process(serve, f"{url}/0.mp4", os.environ))


def _large(size: Size, scratch: Path) -> Figure:
    ratios: list[float] = []
    ours: list[dict[str, float]] = []
    with _served(scratch / "large.mp4", size.large) as url:
        for number in range(size.rounds):
            there = scratch / f"curl-{number}.mp4"
            beside = seconds(f"curl -s -o {there} {url}/0.mp4 && sha256sum {there}")
            there.unlink()
            ours.append(module("downloads", "ours", 1, url, scratch / f"large-{number}"))
            shutil.rmtree(scratch / f"large-{number}")
            ratios.append(ours[-1]["wall_s"] / beside)
            say(f"one download: {ours[-1]['wall_s']:.2f} s, curl and sha256sum {beside:.2f} s")
    ratio, most = statistics.median(ratios), max(one["bytes"] for one in ours)
    return Figure(
        f"one download of {size.large // MIB} MiB to a disk, with its SHA-256",
        "`curl -o` and `sha256sum`",
        "1.0 x, 64 MiB of memory",
        f"**{ratio:.2f} x**, {most / MIB:.0f} MiB",
        ratio <= 1.0 and most < 64 * MIB,
    )


def _many(size: Size, scratch: Path) -> list[Figure]:
    plain: list[float] = []
    hashed: list[float] = []
    stored: list[float] = []
    with _served(scratch / "small.mp4", size.small) as url, moto() as endpoint:
        for number in range(size.rounds):
            folder = scratch / f"curl-{number}"
            files = f"{url}/[0-{size.files - 1}].mp4"
            beside = seconds(f"curl -s --parallel --parallel-max 16 --create-dirs -o '{folder}/#1.mp4' '{files}'")
            sums_s = seconds(f"sha256sum {folder}/*.mp4")
            wall_s = module("downloads", "ours", size.files, url, scratch / f"small-{number}")["wall_s"]
            plain.append(wall_s / beside)
            hashed.append(wall_s / (beside + sums_s))
            environment = os.environ | endpoint | {"HAPPYHORSE_HOME": str(scratch / "home")}
            put_s = module("downloads", "put", folder, f"bench/put-{number}", environment=environment)["wall_s"]
            to_s3_s = module("downloads", "ours", size.files, url, f"s3://bench/ours-{number}", environment=environment)["wall_s"]
            stored.append(to_s3_s / (beside + put_s))
            say(f"many downloads: {wall_s:.2f} s, curl {beside:.2f} s, sha256sum {sums_s:.2f} s")
            say(f"many downloads to S3: {to_s3_s:.2f} s, s3fs put {put_s:.2f} s")
            shutil.rmtree(folder)
            shutil.rmtree(scratch / f"small-{number}")
    what = f"{size.files} downloads of {size.small // MIB} MiB at once"
    rows: list[tuple[str, str, Callable[[], float]]] = [
        (f"{what}, to a disk", "`curl --parallel`, which computes no hash", lambda: statistics.median(plain)),
        ("the same", "`curl --parallel` and `sha256sum`", lambda: statistics.median(hashed)),
        (f"{what}, to S3 (moto's server)", "`curl --parallel` and `put` of s3fs", lambda: statistics.median(stored)),
    ]
    return [Figure(name, beside, "1.2 x", f"**{ratio():.2f} x**", ratio() <= 1.2) for name, beside, ratio in rows]


def bookkeeping(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """The journal and the import."""
    folder = scratch / "many"
    journal.make_journal(folder, size.entries, open_jobs=size.entries)
    read = [module("journal", "read", folder) for _ in range(size.rounds)]
    ratio = statistics.median(one["entries_s"] / one["read_s"] for one in read)
    listed = [*HAPPYHORSE, "jobs", "--store", str(folder), "list"]
    # The first round of each compiles, and does not count.
    list_s = statistics.median([seconds(listed, USERS) for _ in range(size.rounds + 1)][1:])
    imports = [module("imports", environment=USERS) for _ in range(size.rounds + 1)][1:]
    more_s = statistics.median(one["ours_s"] for one in imports)
    entries_s = statistics.median(one["entries_s"] for one in read)
    return [
        Figure(
            f"a journal of {size.entries} jobs, read and checked",
            "reading the bytes of its files",
            "3 x",
            f"{entries_s:.2f} s, **{ratio:.1f} x**",
            ratio <= 3,
        ),
        Figure("`happyhorse jobs list` of it, start included", "", "2 s", f"**{list_s:.1f} s**", list_s <= 2),
        Figure(
            "import",
            f"`import prefect`: {statistics.median(one['prefect_s'] for one in imports):.2f} s",
            "0.2 s more",
            f"**{more_s:.2f} s** more",
            more_s <= 0.2,
        ),
    ], ""


def large_journal(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """What only open entries and sums are wanted of."""
    folder = scratch / "large"
    journal.make_journal(folder, size.many, open_jobs=size.many_open)
    what = f"{size.many} entries, {size.many_open} open"
    first = module("journal", "open", folder, environment=USERS)
    figures = [Figure(f"{what}: read for the first time, which makes the index", "", "", _found(first), None)]
    start_s = peak([*HAPPYHORSE, "--version"], USERS)["wall_s"]
    for name, measured in _looks(folder, USERS).items():
        rounds = [measured() for _ in range(size.rounds)]
        one = {"wall_s": statistics.median(one["wall_s"] for one in rounds), "bytes": max(one["bytes"] for one in rounds)}
        beside = f"its start alone: {start_s:.1f} s" if name.startswith("`happyhorse") else ""
        holds = one["wall_s"] <= 2 and one["bytes"] <= 150 * MIB
        figures.append(Figure(f"{what}: {name}", beside, "2 s, 150 MiB", _found(one), holds))
    with journal_on_s3(folder) as server:
        for name, measured in _looks("s3://bench/outputs", USERS | server.environment).items():
            before = server.cpu_s()
            one = measured()
            beside = f"moto's own processor time: {server.cpu_s() - before:.1f} s"
            figures.append(Figure(f"{what}, on S3 (moto's server): {name}", beside, "5 s", _found(one), one["wall_s"] <= 5))
            say(f"{name} on S3: {_found(one)}, {beside}")
    return figures, ""


def _found(one: Mapping[str, float]) -> str:
    return f"**{one['wall_s']:.1f} s**, {one['bytes'] / MIB:.0f} MiB"


def _looks(store: object, environment: Mapping[str, str]) -> dict[str, Callable[[], dict[str, float]]]:
    return {
        "`happyhorse jobs list --open`": lambda: peak([*HAPPYHORSE, "jobs", "--store", str(store), "list", "--open"], environment),
        "a budget's first check": lambda: module("journal", "budget", store, environment=environment),
        "what `collect` begins with": lambda: module("journal", "open", store, environment=environment),
    }


def peak(arguments: list[str], environment: Mapping[str, str]) -> dict[str, float]:
    """How long a command takes, and its peak memory."""
    started = time.perf_counter()
    running = subprocess.Popen(arguments, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise RuntimeError(f"{arguments} failed")
    return {"wall_s": time.perf_counter() - started, "bytes": used.ru_maxrss * KIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="try everything with little, and judge nothing")
    parser.add_argument("--page", type=Path, help="a page with a place for the figures, which they are written into")
    arguments = parser.parse_args()
    size = LITTLE if arguments.small else Size()
    figures: list[Figure] = []
    plots: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in (bookkeeping, large_journal, polling, fetching, overhead):
            some, drawn = part(size, Path(scratch))
            figures += some
            plots += [drawn] if drawn else []
    if arguments.small:
        figures = [replace(figure, holds=None) for figure in figures]
    text = table(figures) + "\n\n" + "\n\n".join(plots)
    print(text)
    if arguments.page is not None:
        write_into(arguments.page, text)


if __name__ == "__main__":
    main()
