"""Runs on a real Prefect server and worker: cancelled in the UI, deployed from a git repository, and beside files that cannot be read."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.stack import QUIET, ROOT, Stack, fetch, nothing_left_behind, until

from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

from .buyers import command
from .conftest import Recorder
from .damage import DAMAGES, SpoiltJournal
from .work import GATEWAYS, Asked, Verdict, accounts_at, accounts_of_environment, added, judge

pytestmark = pytest.mark.e2e

FLOWS = {"awaited": 1, "mapped": 2, "synchronous": 1, "without-a-way": 1}

PICTURE = '''
"""What somebody deploys who has read the first page."""

from prefect import flow

from prefect_happyhorse import MediaAsset, TextToImage, generate


@flow
async def picture(prompt: str, store: str | None = None) -> MediaAsset:
    """Make a picture."""
    return await generate(TextToImage(model="gpt-image-2", prompt=prompt), "happyhorse", store)
'''

DEPLOY = """
import json, sys

from prefect import flow
from prefect.runner.storage import GitRepository

root, repository, environment, *waiting = sys.argv[1:]
for name in waiting:
    here = flow.from_source(root, f"tests/reliability/waiting_flows.py:{name}")
    here.deploy("waiting", work_pool_name="waiting", print_next_steps=False)
for entrypoint in ("picture.py:picture", "flows/collect.py:collect"):
    cloned = flow.from_source(GitRepository(repository, branch="main"), entrypoint)
    cloned.deploy("git", work_pool_name="waiting", print_next_steps=False, job_variables={"env": json.loads(environment)})
"""


class Workers(Stack):
    """A stack with a worker, the waiting flows on its own disk, and others in a git repository.

    Args:
        folder: Where everything is kept.
        processes: Ends them.
        sandbox: What the flows of the repository buy from; the others buy from the stack's own sandbox, whose jobs take for ever.
    """

    def __init__(self, folder: Path, processes: ExitStack, sandbox: SandboxServer) -> None:
        super().__init__(folder, processes)
        fetch(f"{self.sandbox}/_sandbox/settings", {"job_s": 36_000, "check_inputs": "never"}, method="PATCH")
        self.environment |= {
            "INFIFLOW_BASE_URL": f"{self.sandbox}/infiflow",
            "INFIFLOW_API_KEY": "sesame-1234",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        self.prefect("work-pool", "create", "waiting", "--type", "process")
        # The worker has a store, which its other runs need; whoever runs these has named none.
        theirs = {"HAPPYHORSE_STORE": ""}
        for name in GATEWAYS:
            theirs |= {f"{name.upper()}_BASE_URL": sandbox.base_url(name), f"{name.upper()}_API_KEY": "sesame-1234"}
        waiting = [name.replace("-", "_") for name in FLOWS]
        self.python("-c", DEPLOY, str(ROOT), self._repository(), json.dumps(theirs), *waiting, cwd=folder)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "waiting", "--limit", "4"]
        worker = subprocess.Popen(command, env=self.environment, cwd=ROOT, **QUIET)
        processes.callback(_end, worker)

    def _repository(self) -> str:
        """The address of a git repository with a flow, and with the flow that collects."""
        folder = self.folder / "repository"
        shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "picture.py").write_text(PICTURE, encoding="utf-8")
        who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        if (git := shutil.which("git")) is None:
            pytest.skip("There is no git: apt-get install git")
        for words in (("init", "--initial-branch=main"), ("add", "."), (*who, "commit", "--message=Flows")):
            subprocess.run([git, *words], cwd=folder, check=True, capture_output=True, timeout=60)
        return folder.as_uri()

    def start(self, deployment: str, **parameters: Any) -> str:
        """Begin a run of a deployment; the address of the run."""
        return self._run(fetch(f"{self.api}/deployments/name/{deployment}")["id"], parameters)

    def _run(self, deployment_id: str, parameters: dict[str, Any]) -> str:
        run = fetch(f"{self.api}/deployments/{deployment_id}/create_flow_run", {"parameters": parameters})
        return f"{self.api}/flow_runs/{run['id']}"

    def ended(self, run: str) -> dict[str, Any]:
        """The run once it has ended; in place of one that Prefect itself has lost, as on a machine that is too busy, another is begun."""
        until(lambda: fetch(run)["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}, seconds=600)
        last = fetch(run)
        return self.ended(self._run(last["deployment_id"], last["parameters"])) if last["state"]["type"] == "CRASHED" else last


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        worker.wait(60)
    except subprocess.TimeoutExpired:
        # It waits for a run that it has lost.
        worker.kill()
        worker.wait(60)


@pytest.fixture(scope="module")
def stack(running_sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A server, a worker and two sandboxes."""
    with nothing_left_behind() as processes:
        yield Workers(tmp_path_factory.mktemp("stack"), processes, running_sandbox)


@pytest.mark.parametrize("name", FLOWS)
def test_a_cancelled_run_stops_asking_and_cancels_its_jobs(stack: Workers, name: str) -> None:
    """Awaited, mapped and sync alike: no poll later than 5 s, the gateway's answer in the journal, the submit not called undone."""

    def mine() -> list[Any]:
        return stack.ledger()[before:]

    before = len(stack.ledger())
    run_url = stack.start(f"{name}/waiting")
    until(lambda: len(mine()) == FLOWS[name] and all(entry["polls"] > 1 for entry in mine()))
    fetch(f"{run_url}/set_state", {"state": {"type": "CANCELLING"}})
    asked = time.monotonic()
    counts = [entry["polls"] for entry in mine()]
    last_poll = asked
    while fetch(run_url)["state"]["type"] != "CANCELLED":
        assert time.monotonic() - asked < 90
        now = [entry["polls"] for entry in mine()]
        if now != counts:
            counts, last_poll = now, time.monotonic()
        time.sleep(0.1)
    assert last_poll - asked < 5
    run_id = run_url.rpartition("/")[2]
    bought = [entry for entry in stack.journal() if entry["flow_run_id"] == run_id]
    assert len(bought) == FLOWS[name]
    assert {entry["job"]["task_id"] for entry in bought} == {entry["task_id"] for entry in mine()}
    can = name != "without-a-way"
    assert {(entry["state"], entry["cancellation"]["accepted"]) for entry in bought} == {("cancelled" if can else "submitted", can)}
    assert {entry["state"] for entry in mine()} == {"cancelled" if can else "queued"}
    tasks = fetch(f"{stack.api}/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    assert {task["state"]["name"] for task in tasks if task["name"].startswith("submit")} == {"Completed"}


def test_a_flow_from_git_without_a_store_is_refused(stack: Workers, sandbox: SandboxServer, full: bool, record: Recorder) -> None:
    """The worker clones into a folder that it deletes at the end: without a store that stays, a run fails before anything is sent."""
    named: dict[str, dict[str, str]] = {"none is named": {}}
    if full:
        named |= {
            "counts from the run's own folder": {"store": "./outputs"},
            "lies in the temporary folder": {"store": f"{stack.environment['TMPDIR']}/outputs"},
            "goes with the process": {"store": "memory://outputs"},
        }
    runs = {stack.start("picture/git", prompt="A horse", **store): reason for reason, store in named.items() for _ in range(2)}
    for run, reason in runs.items():
        state = stack.ended(run)["state"]
        assert state["type"] == "FAILED", state
        assert reason in state["message"]
        way_out = "Name a MediaStore block, an absolute folder or a URL such as s3://bucket/outputs in the parameter `store`"
        assert way_out in state["message"]
    nowhere = Store(url=str(stack.folder / "nowhere"))
    verdict = asyncio.run(judge(sandbox, [], accounts_at(sandbox.url), nowhere))
    record("a flow from git on a worker, without a store that stays: refused", verdict, runs=len(runs))


def test_a_flow_from_git_with_a_store_is_paid_for_once(
    stack: Workers, sandbox_env: SandboxServer, tmp_path: Path, full: bool, record: Recorder
) -> None:
    """Run again, after each other and at the same moment, it gives the file that the first run has stored where the store was named."""
    sandbox_env.settings(job_s=0.5)
    store = Store(url=str(tmp_path / "outputs"))
    prompts = [f"A horse from git {number}" for number in range(5 if full else 1)]
    runs: list[str] = []
    fetched: list[list[int]] = []
    for _ in range(2):
        at_once = [
            stack.start("picture/git", prompt=prompt, store=str(store.folder)) for prompt in prompts for _ in range(2 if full else 1)
        ]
        states = [stack.ended(run)["state"] for run in at_once]
        assert {state["type"] for state in states} == {"COMPLETED"}, states
        runs += at_once
        fetched.append([entry.downloads for entry in sandbox_env.ledger()])
    # Of runs at the same moment more than one may fetch the file; once it is stored, nobody does.
    assert fetched[0] == fetched[1]
    asked: list[Asked] = [("happyhorse", TextToImage(model="gpt-image-2", prompt=prompt)) for prompt in prompts]
    verdict = asyncio.run(judge(sandbox_env, asked, accounts_of_environment(), store))
    record("a flow from git on a worker, run again", verdict, runs=len(runs))


def _looked_after_by_hand(journal: SpoiltJournal) -> None:
    """All that `happyhorse jobs` shows and does, beside the spoilt files."""
    listed = command("list", "--json")
    assert listed.code == 0, listed.err
    shown = {json.loads(line)["digest"] for line in listed.out.splitlines()}
    assert shown == {*journal.kept, *journal.open, *journal.marked}
    assert all(name in listed.err for name in journal.spoilt_files)
    for digest in (journal.kept[0], journal.open[0], journal.marked[0]):
        told = command("show", digest[:12])
        assert (told.code, json.loads(told.out)["digest"]) == (0, digest), told.err
    told = command("show", journal.spoilt[0][:12])
    assert told.code != 0
    assert "Mend the file" in told.err


def _names_all(stack: Workers, run: str, names: Sequence[str]) -> str | None:
    """The errors that a run logged, once they name these files."""
    wanted = {"flow_run_id": {"any_": [run]}, "level": {"ge_": 40}}
    told = "\n".join(line["message"] for line in fetch(f"{stack.api}/logs/filter", {"logs": wanted}))
    return told if all(name in told for name in names) else None


def test_files_that_cannot_be_read_are_problems_of_their_own(
    stack: Workers, sandbox_env: SandboxServer, tmp_path: Path, full: bool, record: Recorder
) -> None:
    """Empty, cut and otherwise spoilt: named, and all else goes on by command and by the flow `collect`; unknown fields stay."""
    verdicts: list[Verdict] = []
    for number in range(6 if full else 1):
        moments = random.Random(20261124 + number)  # noqa: S311 -- the same moments each time
        sandbox_env.reset()
        folder = tmp_path / f"{number}"
        damages = moments.sample(list(DAMAGES), 5) if full else ["empty", "cut", "no JSON"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HAPPYHORSE_STORE", str(folder / "outputs"))
            journal = SpoiltJournal(sandbox_env, folder / "outputs", moments, damages)
            _looked_after_by_hand(journal)
            if number % 2:
                resumed = command("resume")
                assert resumed.code == 0, resumed.err
                told = resumed.err
            else:
                run = stack.ended(stack.start("collect/git", store=str(folder / "outputs"), watch=True))
                assert run["state"]["type"] == "COMPLETED", run["state"]
                # What a run logs reaches the server some time after its state.
                told = until(partial(_names_all, stack, run["id"], journal.spoilt_files))
            assert all(name in told for name in journal.spoilt_files), told
            assert journal.states() == dict.fromkeys((*journal.kept, *journal.open, *journal.marked), "kept")
            assert journal.keeps_unknown_fields()
            assert journal.buys_nothing_under_them()
            forgotten = command("forget", journal.stray_file.name, "--yes")
            assert forgotten.code == 0, forgotten.err
            assert (folder / "outputs" / "journal" / "unreadable" / journal.stray_file.name).exists()
            journal.mend()
            verdicts.append(journal.verdict())
            assert journal.keeps_unknown_fields()
    record("journal files that cannot be read, beside others", added(verdicts), runs=len(verdicts))
