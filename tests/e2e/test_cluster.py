"""The real thing: PostgreSQL under the Prefect server, S3 as the store, two workers on a pool, the deployments as shipped."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from .stack import QUIET, ROOT, Stack, fetch, free_port, nothing_left_behind, until

pytestmark = pytest.mark.e2e

BUCKET = "stack"
JOB_S = 4.0


def _postgres(processes: ExitStack) -> str:
    """The address of a database of its own, by a PostgreSQL of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(path).parent for path in [shutil.which("initdb")] if path]
    if not programs:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    processes.callback(shutil.rmtree, folder, ignore_errors=True)
    # PostgreSQL refuses to run as the superuser.
    somebody: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        somebody = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    quiet = {**QUIET, "cwd": folder, **somebody}
    data, port = folder / "data", free_port()
    subprocess.run([programs[-1] / "initdb", "-D", data, "-U", "prefect", "-A", "trust"], check=True, timeout=120, **quiet)
    arguments = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
    running = subprocess.Popen([programs[-1] / "postgres", "-D", data, *arguments], **quiet)
    processes.callback(running.wait, 30)
    # The signal for a fast shutdown, which waits for no client.
    processes.callback(running.send_signal, signal.SIGINT)
    create = [programs[-1] / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"]
    until(lambda: subprocess.run(create, check=False, timeout=30, **quiet).returncode == 0, seconds=60)
    return f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"


def _bucket(processes: ExitStack) -> dict[str, str]:
    """The environment in which s3fs finds a bucket of its own."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    processes.callback(server.stop)
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=address, aws_access_key_id="x", aws_secret_access_key="y", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": address, **keys}


class Cluster(Stack):
    """A stack whose workers are processes that can be killed with all that they started."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self._processes = processes
        self.workers: list[subprocess.Popen[bytes]] = []
        store = {"HAPPYHORSE_STORE": f"s3://{BUCKET}/outputs", **_bucket(processes)}
        database = {"PREFECT_API_DATABASE_CONNECTION_URL": _postgres(processes)}
        super().__init__(folder, processes, job_s=JOB_S, **store, **database)

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "happyhorse", "--limit", "2"]
        worker = subprocess.Popen(command, env=self.environment, cwd=ROOT, start_new_session=True, **QUIET)
        self._processes.callback(self.kill, worker)
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker and the flow runs that it started, as the loss of its machine would."""
        family = _descendants(worker.pid)
        for process in (worker.pid, *family):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        worker.wait(30)

    def run(self, deployment: str, parameters: dict[str, Any], *options: str) -> None:
        words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
        given = [word for name, value in words.items() for word in ("-p", f"{name}={value}")]
        self.prefect("deployment", "run", deployment, *given, *options)


def _descendants(process: int) -> list[int]:
    """The processes that a process started, whichever of its threads did, and those that they started in turn."""
    found: list[int] = []
    # A process may end while it is looked at.
    with suppress(OSError):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return [one for child in found for one in (child, *_descendants(child))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything, with the shipped deployments and two workers."""
    with nothing_left_behind() as processes:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), processes)
        cluster.prefect("work-pool", "create", "happyhorse", "--type", "process")
        cluster.prefect("block", "register", "-m", "prefect_happyhorse")
        cluster.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        for _ in range(2):
            cluster.start_worker()
        yield cluster


def manifest_of(folder: Path, *prompts: str) -> str:
    path = folder / "shots.jsonl"
    path.write_text("\n".join(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": prompt}) for prompt in prompts))
    return str(path)


def test_everything_is_deployed_as_it_is_shipped(cluster: Cluster) -> None:
    """Every flow, with its schedule, limit and description; the schedule that spends money waits for a person."""
    deployments = {one["entrypoint"].partition(":")[0]: one for one in fetch(f"{cluster.api}/deployments/filter", {})}
    assert set(deployments) == {f"flows/{file.name}" for file in (ROOT / "flows").glob("*.py")}
    assert all(one["enforce_parameter_schema"] and one["description"] and one["tags"] == ["happyhorse"] for one in deployments.values())
    active = {name: [schedule["active"] for schedule in one["schedules"]] for name, one in deployments.items() if one["schedules"]}
    assert active == {"flows/batch.py": [False], "flows/collect.py": [True]}
    strategies = {name: one["concurrency_options"]["collision_strategy"] for name, one in deployments.items() if one["concurrency_options"]}
    assert strategies["flows/batch.py"] == strategies["flows/collect.py"] == "CANCEL_NEW"


def test_a_scheduled_batch_is_submitted_and_collected(cluster: Cluster, tmp_path: Path) -> None:
    """Started in the future, submitted by one run, kept in S3 by others: states, tasks, artifacts, tags and events say so."""
    prompts = [f"A scheduled horse {number}" for number in range(3)]
    cluster.run("batch/process", {"manifest": manifest_of(tmp_path, *prompts)}, "--start-in", "2 seconds")
    (run,) = until(lambda: [run for run in cluster.runs("batch") if run["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED"}])
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert (run["expected_start_time"], run["auto_scheduled"]) != (run["created"], True)
    assert len(cluster.ledger()) == 3
    time.sleep(max(0.0, max(entry["charged_at"] for entry in cluster.ledger()) + JOB_S - time.time()))
    cluster.run("collect/process", {"watch": True})
    until(lambda: all(entry["downloads"] for entry in cluster.ledger()))
    until(lambda: any(run["state"]["type"] == "COMPLETED" and run["parameters"].get("watch") for run in cluster.runs("collect")))
    tasks = fetch(f"{cluster.api}/task_runs/filter", {"task_runs": {"tags": {"all_": ["happyhorse"]}}})
    assert [task["name"] for task in tasks if task["name"].startswith("submit")] == ["submit 3 requests, batch"]
    assert {task["state"]["type"] for task in tasks if task["name"].startswith("submit")} == {"COMPLETED"}
    artifacts = fetch(f"{cluster.api}/artifacts/filter", {})
    galleries = [artifact["data"] for artifact in artifacts if (artifact["key"] or "").startswith("gallery-collect")]
    assert sum(shown.count("data:image/jpeg;base64,") for shown in galleries) >= 3
    assert all("s3://stack/outputs/" in shown for shown in galleries)
    assert "sesame" not in json.dumps([tasks, artifacts])


def test_the_loss_of_a_worker_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """One is killed with its run while six jobs are paid for and unfinished; the other finishes them: one charge and one file each."""
    prompts = [f"A lost horse {number}" for number in range(6)]
    before = len(cluster.ledger())
    parameters = {"manifest": manifest_of(tmp_path, *prompts), "detach": False}
    cluster.run("batch/process", parameters)
    until(lambda: len(cluster.ledger()) == before + 6 and all(entry["polls"] for entry in cluster.ledger()[before:]))
    owner = next(worker for worker in cluster.workers if any("engine" in _command(child) for child in _descendants(worker.pid)))
    cluster.kill(owner)
    assert not any(entry["downloads"] for entry in cluster.ledger()[before:])
    # The server holds the dead run's place until it is told. Then it is tried again, as the Retry of the UI does.
    (lost,) = [run for run in cluster.runs("batch") if run["state"]["type"] == "RUNNING"]
    url = f"{cluster.api}/flow_runs/{lost['id']}"
    fetch(f"{url}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    fetch(f"{url}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True})
    until(lambda: fetch(url)["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED"})
    assert fetch(url)["state"]["type"] == "COMPLETED", fetch(url)["state"]
    charged = cluster.ledger()[before:]
    assert Counter(entry["digest"] for entry in charged).most_common(1)[0][1] == 1
    assert [entry["downloads"] >= 1 for entry in charged] == [True] * 6


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
