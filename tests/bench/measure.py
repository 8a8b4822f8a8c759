"""How much is measured, and what measures it: each figure in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KIB, MIB = 1024, 1024**2
HAPPYHORSE = [sys.executable, "-m", "prefect_happyhorse.cli"]
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
        rows: How many rows a manifest has that is made.
        stored: How many one has of which all is stored.
        chains: How many chains wait suspended.
        chain_s: How long each of their jobs takes, in seconds.
        kills: How often something of theirs is killed meanwhile.
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
    rows: int = 10_000
    stored: int = 100_000
    chains: int = 1000
    chain_s: float = 60.0
    kills: int = 50
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
    rows=3,
    stored=5,
    chains=3,
    chain_s=1.0,
    kills=1,
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


def peak(arguments: list[str], environment: Mapping[str, str]) -> dict[str, float]:
    """How long a command takes, its own processor time, and its peak memory."""
    started = time.perf_counter()
    running = subprocess.Popen(arguments, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise RuntimeError(f"{arguments} failed")
    return {"wall_s": time.perf_counter() - started, "cpu_s": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * KIB}
