"""A flow run that is cancelled in the UI: its polls stop, its jobs are cancelled where they can be, and the journal is true."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.stack import QUIET, ROOT, Stack, fetch, nothing_left_behind, until

pytestmark = pytest.mark.e2e

FLOWS = {"awaited": 1, "mapped": 2, "synchronous": 1, "without-a-way": 1}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server, a sandbox whose jobs take for ever, and a worker with the four flows deployed."""
    folder = tmp_path_factory.mktemp("stack")
    with nothing_left_behind() as processes:
        stack = Stack(folder, processes)
        fetch(f"{stack.sandbox}/_sandbox/settings", {"job_s": 36_000, "check_inputs": "never"}, method="PATCH")
        stack.environment |= {"INFIFLOW_BASE_URL": f"{stack.sandbox}/infiflow", "INFIFLOW_API_KEY": "sesame-1234"}
        stack.prefect("work-pool", "create", "waiting", "--type", "process")
        for name in FLOWS:
            entrypoint = f"tests/reliability/waiting_flows.py:{name.replace('-', '_')}"
            stack.prefect("deploy", entrypoint, "--name", "waiting", "--pool", "waiting")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "waiting"]
        worker = subprocess.Popen(command, env=stack.environment, cwd=ROOT, **QUIET)
        processes.callback(worker.wait, 60)
        processes.callback(worker.terminate)
        yield stack


@pytest.mark.parametrize("name", FLOWS)
def test_a_cancelled_run_stops_asking_and_cancels_its_jobs(stack: Stack, name: str) -> None:
    """Awaited, mapped and sync alike: no poll later than 5 s, the gateway's answer in the journal, the submit not called undone."""

    def mine() -> list[Any]:
        return stack.ledger()[before:]

    before = len(stack.ledger())
    deployment = fetch(f"{stack.api}/deployments/name/{name}/waiting")
    run = fetch(f"{stack.api}/deployments/{deployment['id']}/create_flow_run", {})
    run_url = f"{stack.api}/flow_runs/{run['id']}"
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
    bought = [entry for entry in stack.journal() if entry["flow_run_id"] == run["id"]]
    assert len(bought) == FLOWS[name]
    assert {entry["job"]["task_id"] for entry in bought} == {entry["task_id"] for entry in mine()}
    can = name != "without-a-way"
    assert {(entry["state"], entry["cancellation"]["accepted"]) for entry in bought} == {("cancelled" if can else "submitted", can)}
    assert {entry["state"] for entry in mine()} == {"cancelled" if can else "queued"}
    tasks = fetch(f"{stack.api}/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {task["state"]["name"] for task in tasks if task["name"].startswith("submit")} == {"Completed"}
