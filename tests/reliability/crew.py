"""Workers and a collector on a real server, of which any is killed at any moment, and the person who sees the runs through all the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from tests.e2e.stack import ROOT, Stack, fetch

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.engine.jobs.manage import forget
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

from .work import Verdict

LOST_S = 20.0
_LOOKS_EVERY_S = 2.0
UNDER_WAY = {"Pending", "Submitting", "Running"}


@dataclass(frozen=True)
class Held:
    """What the processes of a crew hold in memory.

    Args:
        processes: How many there are.
        resident: The sum of what is resident of each, in bytes.
        proportional: The same, where what several share counts once, in bytes.
    """

    processes: int
    resident: int
    proportional: int


class Crew:
    """The workers of a pool and the collector, which are started anew whenever they are killed.

    Args:
        pool: The work pool.
        workers: How many workers.
        limit: How many runs each has at a time.
    """

    def __init__(self, stack: Stack, pool: str, *, workers: int, limit: int) -> None:
        self.stack = stack
        worker = ["-m", "prefect", "worker", "start", "--pool", pool, "--limit", str(limit), "--name"]
        self.commands = [*([*worker, f"worker {one}"] for one in range(workers)), [str(ROOT / "flows" / "collect.py"), "--follow", "1"]]
        self.running = [self._start(command) for command in self.commands]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.stack.folder / "crew.log").open("ab") as log:
            said = {"stdout": log, "stderr": log}
            return subprocess.Popen([sys.executable, *command], env=self.stack.environment, cwd=ROOT, start_new_session=True, **said)

    def revive(self) -> None:
        """Start anew what ended by itself, such as a worker that did not reach the server in time, as a service manager does."""
        for which, process in enumerate(self.running):
            if process.poll() is not None:
                self.running[which] = self._start(self.commands[which])

    def kill(self, which: int) -> None:
        """End one with all its runs, as a machine does that is switched off, and start another in its place."""
        self._end(self.running[which])
        self.running[which] = self._start(self.commands[which])

    def kill_run(self, run: str) -> None:
        """End the process of one run alone."""
        if (pid := self.runs().get(run)) is not None:
            _kill(pid)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for one in [*_descendants(process.pid), process.pid]:
            _kill(one)
        process.wait(60)

    def end(self) -> None:
        for process in self.running:
            self._end(process)

    def _processes(self) -> list[int]:
        return [one for process in self.running for one in [process.pid, *_descendants(process.pid)]]

    def runs(self) -> dict[str, int]:
        """The processes of flow runs, by these."""
        found: dict[str, int] = {}
        for pid in self._processes():
            with suppress(OSError):
                for name, _, value in (one.partition(b"=") for one in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                    if name == b"PREFECT__FLOW_RUN_ID":
                        found[value.decode()] = pid
        return found

    def held(self) -> Held:
        """What all of them hold in memory now."""
        sizes: list[tuple[int, int]] = []
        for pid in self._processes():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                facts = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
                sizes.append((facts["Rss:"], facts["Pss:"]))
        return Held(len(sizes), sum(one for one, _ in sizes), sum(one for _, one in sizes))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(process.name))
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def states(stack: Stack, flow: str) -> dict[str, tuple[str, str]]:
    """The state of each run of a flow, and when it came into it."""
    found: dict[str, tuple[str, str]] = {}
    while True:
        body: dict[str, Any] = {"flows": {"name": {"any_": [flow]}}, "sort": "ID_DESC", "offset": len(found), "limit": 200}
        page = fetch(f"{stack.api}/flow_runs/filter", body)
        found |= {run["id"]: (run["state"]["name"], run["state"]["timestamp"]) for run in page}
        if len(page) < body["limit"]:
            return found


def see_through(
    crew: Crew,
    flow: str,
    runs: int,
    *,
    jobs: int,
    kill: Callable[[random.Random], None],
    kills: int,
    within_s: float,
    look: Callable[[Counter[str]], None] = lambda names: None,
) -> int:
    """Kill again and again until all runs have ended well, and begin anew what was lost, as an automation would; gives how often it killed.

    Args:
        crew: Who works.
        flow: The flow.
        runs: How many runs of it there are.
        jobs: How many jobs all of them make.
        kill: Kills something, chosen by these numbers, whenever so many jobs are bought and fetched as chance wants.
        kills: How often, at most.
        within_s: How long all may take, in seconds.
        look: Called every two seconds with how many runs are in which state.
    """
    chance = random.Random(20261130)  # noqa: S311 -- the same each time
    moments = sorted(chance.sample(range(2 * jobs), kills))
    deadline = time.monotonic() + within_s
    killed = 0
    since: dict[tuple[str, str, str], float] = {}
    while True:
        now = {(run, *state) for run, state in states(crew.stack, flow).items()}
        names = Counter(name for _, name, _ in now)
        if names["Completed"] == runs:
            return killed
        assert time.monotonic() < deadline, names
        crew.revive()
        look(names)
        alive = crew.runs()
        # How long nothing but its state has said that it is under way.
        since = {one: time.monotonic() if one[0] in alive else since.get(one, time.monotonic()) for one in now}
        over = {run for run, name, _ in now if name in {"Crashed", "Failed"}}
        # One that was killed with its worker stays what it was for ever. One that is only slow is begun twice, which does no harm.
        stuck = {one[0] for one in now if one[1] in UNDER_WAY and time.monotonic() - since[one] > LOST_S}
        if over | stuck:
            resolve_doubt(crew.stack)
        for run in over | stuck:
            _begin_anew(crew.stack, run)
        next_look = time.monotonic() + _LOOKS_EVERY_S
        while time.monotonic() < next_look:
            # Often, so that it also comes while a run is about to submit.
            if killed < kills and sum(1 + (one["downloads"] > 0) for one in crew.stack.ledger()) > moments[killed]:
                kill(chance)
                killed += 1
                break
            time.sleep(_LOOKS_EVERY_S / 10)


def _begin_anew(stack: Stack, run: str) -> None:
    fetch(f"{stack.api}/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True})


def resolve_doubt(stack: Stack) -> None:
    """Be the person who looks at the console: what a killed run left in doubt is adopted if it is there, and forgotten if it is not."""
    asyncio.run(_resolve_doubt(stack))


async def _resolve_doubt(stack: Stack) -> None:
    environment = stack.environment
    store = Store(url=environment["HAPPYHORSE_STORE"])
    account = Account(gateway="happyhorse", base_url=environment["HAPPYHORSE_BASE_URL"], key=SecretStr(environment["HAPPYHORSE_API_KEY"]))
    journal = Journal(store)
    doubtful = [one for one in (await open_entries(journal)).entries if _is_left_behind(one)]
    if not doubtful:
        return
    known = {entry.job.task_id for entry in (await journal.entries()).entries if entry.job is not None}
    for entry in doubtful:
        asked = entry.request.model, entry.request.prompt
        strays = [one for one in stack.ledger() if one["task_id"] not in known and (one["model"], one["prompt"]) == asked]
        # Another process may have settled it meanwhile, or be about to.
        with suppress(GenerationError, ValueError):
            if strays:
                found = min(strays, key=lambda one: abs(one["charged_at"] - entry.owner.at.timestamp()))["task_id"]
                known.add(found)
                await Session(account, store).adopt(entry, found)
            else:
                await forget(journal, entry)


def _is_left_behind(entry: JournalEntry) -> bool:
    return entry.job is None and entry.state in {"intent", "uncertain"} and not Path(f"/proc/{entry.owner.process}").exists()


def judge(stack: Stack, jobs: int) -> Verdict:
    """Hold the sandbox's ledger against the journal."""
    ledger, kept = stack.ledger(), [entry for entry in stack.journal() if entry["state"] == "kept"]
    return Verdict(
        jobs=jobs,
        charges=len(ledger),
        double=len(ledger) - len({entry["job"]["task_id"] for entry in kept}),
        lost=jobs - len(kept),
        corrupt=0,
    )
