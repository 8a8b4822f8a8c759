"""Many jobs at once, beside what does less of it."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import KIB, MIB, Size, module, say
from tests.bench.report import Figure, plot
from tests.bench.services import prefect_server, sandbox

PROVIDERS_LIMIT = 20.0
"""The polls that DashScope allows an account in a second."""


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
                *(["many", "engine"] if jobs in size.threads else []),
            ]
            for kind in kinds:
                before = server.cpu_s()
                arguments = (kind, jobs, size.job_s, url, scratch / f"{kind}-{jobs}")
                found[kind, jobs] = module("load", *arguments, environment=server.environment)
                if failed := found[kind, jobs]["failed"]:
                    raise RuntimeError(f"{failed:.0f} of {jobs} jobs failed by {kind}")
                served[kind, jobs] = (server.settled_cpu_s() - before) / jobs
                say(f"{jobs:5} {kind:9} {found[kind, jobs]['wall_s']:8.2f} s")
    return found, served


def beside_the_providers_own(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """The provider's own package in threads, and ours, where the provider's limit is enforced for both."""
    figures: list[Figure] = []
    options = ("--job-s", str(size.job_s), "--media", "tiny", "--check-inputs", "never")
    with sandbox(*options) as url, prefect_server(scratch / "limited") as server:
        for jobs in size.threads:
            loads: dict[str, dict[str, float]] = {}
            for kind in ("threads", "again", "many", "engine"):
                arguments = (kind, jobs, size.job_s, url, scratch / f"{kind}-{jobs}-limited", PROVIDERS_LIMIT)
                loads[kind] = module("load", *arguments, environment=server.environment)
                say(f"{jobs:5} {kind:9} {loads[kind]['wall_s']:8.2f} s, {loads[kind]['failed']} failed, {PROVIDERS_LIMIT:g} polls a second")
            threads, again = loads["threads"], loads["again"]
            for kind, what in (("many", "`generate_many`"), ("engine", "the same without Prefect")):
                ours = loads[kind]
                is_less = ours["wall_s"] < again["wall_s"] and ours["bytes"] < again["bytes"]
                figures.append(
                    Figure(
                        f"{jobs} jobs at once where {PROVIDERS_LIMIT:g} polls a second are answered, {what}",
                        f"`dashscope` in as many threads: {_found(threads, jobs)}; where each asks again: {_found(again, jobs)}",
                        "less time and memory, none failed",
                        _found(ours, jobs),
                        is_less and ours["failed"] == 0,
                    )
                )
    return figures, ""


def _found(load: dict[str, float], jobs: int) -> str:
    return f"{load['wall_s']:.1f} s, {load['bytes'] / KIB / jobs:.0f} KiB a job, **{load['failed']:.0f} failed**"


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
