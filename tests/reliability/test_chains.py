"""Chains that wait suspended, on a real server, two workers and a collector, of which any is killed at any moment with all its runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.stack import QUIET, ROOT, Stack, fetch, nothing_left_behind

from .conftest import Recorder
from .work import Verdict

STEPS = 3
"""A picture, the video that stars it, and an edit of that."""

STUCK_S = 60.0
UNDER_WAY = {"Pending", "Submitting", "Running"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    more = {"PREFECT_WORKER_QUERY_SECONDS": "1", "HAPPYHORSE_PRIVATE_NETWORK": "true"}
    with nothing_left_behind() as processes:
        yield Stack(tmp_path_factory.mktemp("chains"), processes, job_s=5.0, **more)


class Crew:
    """The workers and the collector, which are started anew whenever they are killed."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        worker = ["-m", "prefect", "worker", "start", "--pool", "chains", "--limit", "2"]
        self.commands = [[*worker, "--name", "one"], [*worker, "--name", "two"], [str(ROOT / "flows" / "collect.py"), "--follow", "1"]]
        self.running = [self._start(command) for command in self.commands]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *command], env=self.stack.environment, cwd=ROOT, start_new_session=True, **QUIET)

    def kill(self, which: int) -> None:
        """End one with all its runs, as a machine does that is switched off, and start another in its place."""
        self._end(self.running[which])
        self.running[which] = self._start(self.commands[which])

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for one in [*_descendants(process.pid), process.pid]:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait(60)

    def end(self) -> None:
        for process in self.running:
            self._end(process)


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


def states(stack: Stack) -> dict[str, tuple[str, str]]:
    """The state of each chain's run, and when it came into it."""
    found: dict[str, tuple[str, str]] = {}
    while True:
        body: dict[str, Any] = {"flows": {"name": {"any_": ["image-to-video-edit"]}}, "sort": "ID_DESC", "offset": len(found), "limit": 200}
        page = fetch(f"{stack.api}/flow_runs/filter", body)
        found |= {run["id"]: (run["state"]["name"], run["state"]["timestamp"]) for run in page}
        if len(page) < body["limit"]:
            return found


def test_suspended_chains_survive_the_loss_of_workers_and_collectors(stack: Stack, full: bool, record: Recorder) -> None:
    """Every step of every chain is bought once, and every chain ends; what a lost worker left is begun anew, as an automation would."""
    if not full:
        pytest.skip("It takes ten minutes: make chaos runs it, and tests/e2e/test_deployment.py a small one.")
    chains = int(os.environ.get("CHAINS", "40"))
    kills = 10 + chains // 4
    moments = random.Random(20261130)  # noqa: S311 -- the same moments each time
    stack.prefect("work-pool", "create", "chains", "--type", "process")
    stack.prefect("deploy", "flows/image_to_video_edit.py:image_to_video_edit", "--name", "chains", "--pool", "chains")
    deployment = fetch(f"{stack.api}/deployments/name/image-to-video-edit/chains")["id"]
    small = {"resolution": "720p", "duration": 3}
    for take in range(1, chains + 1):
        given = {"video": small, "edit": small, "take": take, "wait": "suspend"}
        fetch(f"{stack.api}/deployments/{deployment}/create_flow_run", {"parameters": given})
    crew = Crew(stack)
    killed = 0
    deadline = time.monotonic() + 45.0 * chains
    since: dict[tuple[str, str, str], float] = {}
    try:
        while True:
            now = {(run, *state) for run, state in states(stack).items()}
            names = Counter(name for _, name, _ in now)
            if names["Completed"] == chains:
                break
            assert time.monotonic() < deadline, names
            since = {one: since.get(one, time.monotonic()) for one in now}
            over = {run for run, name, _ in now if name in {"Crashed", "Failed"}}
            # One that was killed with its worker stays what it was for ever. One that is only slow is begun twice, which does no harm.
            stuck = {one[0] for one in now if one[1] in UNDER_WAY and time.monotonic() - since[one] > STUCK_S}
            if over | stuck:
                _at_the_console(stack)
            for run in over | stuck:
                _begin_anew(stack, run)
            time.sleep(moments.uniform(2.0, 8.0))
            if killed < kills:
                crew.kill(moments.randrange(3))
                killed += 1
    finally:
        crew.end()
    ledger = stack.ledger()
    journal = stack.journal()
    record(
        f"{chains} chains of {STEPS} steps that wait suspended; {kills} SIGKILLs of workers with their runs, and of collectors",
        Verdict(
            jobs=chains * STEPS,
            charges=len(ledger),
            double=len(ledger) - len({entry["job"]["task_id"] for entry in journal if entry["state"] == "kept"}),
            lost=chains * STEPS - sum(entry["state"] == "kept" for entry in journal),
            corrupt=0,
        ),
        runs=chains,
    )
    assert not list(Path(stack.environment["HAPPYHORSE_STORE"]).glob("journal/waiting/*"))


def _at_the_console(stack: Stack) -> None:
    """Be the person who looks at the console: what a killed run left in doubt is adopted if it is there, and forgotten if it is not."""
    entries = stack.journal()
    known = {entry["job"]["task_id"] for entry in entries if "job" in entry}
    for entry in entries:
        if "job" in entry or entry["state"] not in {"intent", "uncertain"} or Path(f"/proc/{entry['owner']['process']}").exists():
            continue
        kind, begun = entry["request"]["capability"], datetime.fromisoformat(entry["owner"]["at"].replace("Z", "+00:00")).timestamp()
        strays = [one for one in stack.ledger() if one["task_id"] not in known and one["capability"] == kind]
        name = entry["digest"][:12]
        if strays:
            found = min(strays, key=lambda one: abs(one["charged_at"] - begun))["task_id"]
            known.add(found)
            stack.python("-m", "prefect_happyhorse.cli", "jobs", "adopt", found, name)
        else:
            stack.python("-m", "prefect_happyhorse.cli", "jobs", "forget", name, "--yes")


def _begin_anew(stack: Stack, run: str) -> None:
    fetch(f"{stack.api}/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True})
