"""Processes that share nothing but an object store: each request is paid for once, and all get the same file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

from .buyers import buy
from .conftest import Recorder
from .work import Asked, accounts_at, judge

PICTURES = 5


@pytest.mark.parametrize(("kind", "processes"), [("local", 2), ("local", 8), ("s3", 2), ("s3", 8)])
def test_machines_that_share_a_store_share_its_jobs(
    sandbox: SandboxServer, bucket: dict[str, Any], tmp_path: Path, record: Recorder, kind: str, processes: int
) -> None:
    """The same pictures asked for by several processes at the same moment: one charge each, and the same files for all."""
    sandbox.settings(job_s=0.5)
    store = Store(url=f"s3://stack/{tmp_path.name}", options=bucket) if kind == "s3" else Store(url=str(tmp_path / "outputs"))
    base_url = sandbox.base_url("happyhorse")
    said = {"store": store.url, "options": dict(store.options), "base_url": base_url, "count": PICTURES, "on_uncertain": "raise"}
    first, *others = [ended.made for ended in buy(said, tmp_path, processes)]
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
    first, *others = [ended.made for ended in buy(said, tmp_path, 4)]
    assert others == [first] * 3
    assert [entry.task_id for entry in sandbox.ledger()] == [first[0][0]]
