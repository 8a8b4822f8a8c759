"""Processes that share nothing but an object store: each request is paid for once, and all get the same file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.submit import prepare
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

from .conftest import Recorder
from .work import Asked, accounts_at, judge

PICTURES = 5


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, Any]]:
    """What opens a bucket of a server that speaks S3."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "x", "secret": "y", "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}}
    boto3.client("s3", aws_access_key_id="x", aws_secret_access_key="y", **options["client_kwargs"]).create_bucket(Bucket="stack")
    yield options
    server.stop()


def buy(said: dict[str, Any], folder: Path, processes: int) -> list[list[list[str]]]:
    """Run buyers on machines of their own, as far as they can tell, all at the same moment."""
    with ExitStack() as running:
        buyers: list[subprocess.Popen[str]] = []
        for _ in range(processes):
            command = [sys.executable, str(Path(__file__).with_name("buyer.py"))]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
            )
            running.callback(process.wait, 60)
            running.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            buyers.append(process)
        for number, process in enumerate(buyers):
            assert process.stdin is not None
            process.stdin.write(json.dumps(said | {"scratch": str(folder / f"machine-{number}")}) + "\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=120) for process in buyers]
        assert [process.returncode for process in buyers] == [0] * processes, answers
    return [json.loads(out) for out, _ in answers]


@pytest.mark.parametrize(("kind", "processes"), [("local", 2), ("local", 8), ("s3", 2), ("s3", 8)])
def test_machines_that_share_a_store_share_its_jobs(
    sandbox: SandboxServer, bucket: dict[str, Any], tmp_path: Path, record: Recorder, kind: str, processes: int
) -> None:
    """The same pictures asked for by several processes at the same moment: one charge each, and the same files for all."""
    sandbox.settings(job_s=0.5)
    store = Store(url=f"s3://stack/{tmp_path.name}", options=bucket) if kind == "s3" else Store(url=str(tmp_path / "outputs"))
    base_url = sandbox.base_url("happyhorse")
    said = {"store": store.url, "options": dict(store.options), "base_url": base_url, "count": PICTURES, "on_uncertain": "raise"}
    first, *others = buy(said, tmp_path, processes)
    assert others == [first] * (processes - 1)
    assert sorted(task_id for task_id, _, _ in first) == sorted(entry.task_id for entry in sandbox.ledger())
    asked: list[Asked] = [("happyhorse", TextToImage(model="gpt-image-2", prompt=f"Horse {number}")) for number in range(PICTURES)]
    verdict = asyncio.run(judge(sandbox, asked, accounts_at(sandbox.url), store))
    record(f"{processes} processes on the same batch at the same moment, {kind}", verdict, runs=processes)
    assert (kind == "local") == (tmp_path / "outputs").exists()


@pytest.mark.parametrize("kind", ["s3", "local"])
def test_of_machines_that_would_all_pay_again_one_does(sandbox: SandboxServer, bucket: dict[str, Any], tmp_path: Path, kind: str) -> None:
    """A submit was left uncertain, and four processes are told to resubmit at the same moment: one of them does."""
    store = f"s3://stack/{tmp_path.name}" if kind == "s3" else str(tmp_path / "outputs")
    options = bucket if kind == "s3" else {}

    async def leave_uncertain() -> None:
        account = Account(gateway="happyhorse", base_url=sandbox.base_url("happyhorse"), key=SecretStr("sesame-1234"))
        request = TextToImage(model="gpt-image-2", prompt="Horse 0")
        prepared = await prepare(request, account)
        gone = JournalEntry(
            digest=prepared.digest,
            state="uncertain",
            gateway="happyhorse",
            account="default",
            take=1,
            request=request,
            owner=LeaseOwner(run="another"),
        )
        assert await Journal(Store(url=store, options=options)).acquire(gone) is not None

    asyncio.run(leave_uncertain())
    said = {"store": store, "options": options, "base_url": sandbox.base_url("happyhorse"), "count": 1, "on_uncertain": "resubmit"}
    first, *others = buy(said, tmp_path, 4)
    assert others == [first] * 3
    assert [entry.task_id for entry in sandbox.ledger()] == [first[0][0]]
