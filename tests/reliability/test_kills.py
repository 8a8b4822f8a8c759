"""Processes that are killed at any moment: the next run goes on, nothing is paid for twice, nothing is lost, no half file is seen."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefect_happyhorse.blocks import GatewayCredentials
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

from .conftest import Recorder
from .work import Asked, Verdict, accounts_at, added, at_the_console, judge, make_all, requests_of

JOBS = 20
ROOT = Path(__file__).parents[2]


def spawn(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A process in a group of its own, so that it can be killed with all it started."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"HAPPYHORSE_HOME": str(folder / "home")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def seen(sandbox: SandboxServer) -> int:
    """How many submits, polls and downloads the provider has seen."""
    return sum(1 + entry.polls + entry.downloads for entry in sandbox.ledger())


def kill_somewhere(process: subprocess.Popen[str], sandbox: SandboxServer, moment: random.Random) -> bool:
    """Kill a process at a random time, or after a random number of calls; False when it ended first."""
    if moment.random() < 0.5:
        at = time.monotonic() + moment.uniform(0, 1.0)
        while time.monotonic() < at and process.poll() is None:
            time.sleep(0.002)
    else:
        calls = seen(sandbox) + moment.randint(1, 2 * JOBS)
        while seen(sandbox) < calls and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moment.uniform(0, 0.02))
    with process:
        alive = process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
    return alive


def test_a_batch_survives_every_kill(sandbox: SandboxServer, tmp_path: Path, full: bool, record: Recorder) -> None:
    """Killed ten times over submit, poll and download, restarted until done; what was left uncertain a person looks up."""
    sandbox.settings(job_s=(0.1, 2.0))
    moment = random.Random(20261121)  # noqa: S311 -- the same moments each time
    wanted = 220 if full else 8
    kills = batches = 0
    verdicts: list[Verdict] = []
    while kills < wanted:
        batches += 1
        name = f"killed {batches}"
        store = Store(url=str(tmp_path / f"outputs-{batches}"))
        asked, accounts = requests_of(JOBS, batch=name), accounts_at(sandbox.url)
        sandbox.reset()
        # Files so small are there at once; a part of them comes in two halves, so that there is something to break off.
        sandbox.fault(at="download", kind="stall_body", times=None, probability=0.5, seconds=0.2)
        for _ in range(10):
            process = spawn([str(Path(__file__).with_name("maker.py")), sandbox.url, store.url, str(JOBS), name], tmp_path)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if not kill_somewhere(process, sandbox, moment):
                break
            kills += 1
            if kills == wanted:
                break
        asyncio.run(_finish(sandbox, asked, accounts, store))
        verdicts.append(asyncio.run(judge(sandbox, asked, accounts, store)))
    record(f"SIGKILL at random moments of a {JOBS}-job batch", added(verdicts), runs=kills)


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_survives_every_kill(sandbox_env: SandboxServer, tmp_path: Path, full: bool, record: Recorder) -> None:
    """`python flows/batch.py` on a real Prefect server, killed and started again."""
    from prefect.settings import PREFECT_API_URL

    sandbox_env.settings(job_s=(0.2, 1.5))
    moment = random.Random(20261122)  # noqa: S311 -- the same moments each time
    wanted = 30 if full else 2
    kills = batches = 0
    verdicts: list[Verdict] = []
    while kills < wanted:
        batches += 1
        sandbox_env.reset()
        folder = tmp_path / f"flow-{batches}"
        folder.mkdir()
        manifest = folder / "shots.jsonl"
        prompts = [f"flow {batches} shot {number}" for number in range(JOBS)]
        manifest.write_text(
            "\n".join(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": prompt}) for prompt in prompts)
        )
        command = [str(ROOT / "flows" / "batch.py"), str(manifest)]
        environment = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "HAPPYHORSE_STORE": str(folder / "outputs")}
        for _ in range(6):
            before = seen(sandbox_env)
            process = spawn(command, folder, **environment)
            # A process takes seconds until it does something, in which there is nothing to break.
            while seen(sandbox_env) == before and process.poll() is None:
                time.sleep(0.002)
            if not kill_somewhere(process, sandbox_env, moment):
                break
            kills += 1
            if kills == wanted:
                break
        store = Store(url=str(folder / "outputs"))
        asked: list[Asked] = [("happyhorse", TextToImage(model="gpt-image-2", prompt=prompt)) for prompt in prompts]
        accounts = {"happyhorse": GatewayCredentials.from_environment("happyhorse").to_account()}
        asyncio.run(_finish(sandbox_env, asked, accounts, store))
        with spawn(command, folder, **environment) as last:
            last.communicate(timeout=120)
        assert last.returncode == 0
        verdicts.append(asyncio.run(judge(sandbox_env, asked, accounts, store)))
    record("SIGKILL of `python flows/batch.py` at random moments", added(verdicts), runs=kills)


STEPS = """
import os, sys
sys.path.insert(0, {root!r})
import prefect_happyhorse.engine.http.client as client
from prefect_happyhorse.engine.storage.store import Store
left = {left}

def step():
    global left
    left -= 1
    if left < 0:
        os._exit(9)

def counted(method):
    async def wrapped(*args, **kwargs):
        step()
        answer = await method(*args, **kwargs)
        step()
        return answer
    return wrapped

for name in ("create", "write", "write_all", "delete", "keep"):
    setattr(Store, name, counted(getattr(Store, name)))
client._transmit = counted(client._transmit)
__file__ = {maker!r}
sys.argv = ["maker.py", {sandbox!r}, {store!r}, "1", {batch!r}]
exec(compile(open({maker!r}).read(), {maker!r}, "exec"))
"""


def test_a_job_survives_a_death_at_every_step(sandbox: SandboxServer, tmp_path: Path, full: bool, record: Recorder) -> None:
    """Before and after each write, lease, call and move of one job's life; the small campaign takes every fourth of these."""
    sandbox.settings(job_s=0)
    maker = str(Path(__file__).with_name("maker.py"))
    deaths, code = [], 9
    for left in range(0, 400, 1 if full else 4):
        sandbox.reset()
        name = f"step {left}"
        store = Store(url=str(tmp_path / f"outputs-{left}"))
        asked, accounts = requests_of(1, batch=name), accounts_at(sandbox.url)
        script = STEPS.format(root=str(ROOT), left=left, sandbox=sandbox.url, store=store.url, batch=name, maker=maker)
        process = spawn(["-c", script], tmp_path)
        with process:
            process.communicate(timeout=60)
        code = process.returncode
        assert code in {0, 9}
        if code == 0:
            break
        asyncio.run(_finish(sandbox, asked, accounts, store))
        deaths.append(asyncio.run(judge(sandbox, asked, accounts, store)))
    assert code == 0
    assert len(deaths) >= (18 if full else 5)
    record("death before or after each step of a job", added(deaths), runs=len(deaths))


async def _finish(sandbox: SandboxServer, asked: list[Asked], accounts: dict[str, Account], store: Store) -> None:
    """Run again, let a person look up what is uncertain, run until all is done; what is kept is then not fetched again."""
    await make_all(asked, accounts, store)
    await at_the_console(sandbox, asked, accounts, store)
    assert await make_all(asked, accounts, store) == [None] * len(asked)
    fetched = [entry.downloads for entry in sandbox.ledger()]
    await make_all(asked, accounts, store)
    assert [entry.downloads for entry in sandbox.ledger()] == fetched
