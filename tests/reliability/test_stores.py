"""An object store behind a line that takes conditions away, delays, and loses answers: each request is bought once, or not at all."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

from .buyers import buy
from .conftest import Recorder
from .s3_proxy import StoreFaults, s3_proxy
from .work import Asked, Verdict, accounts_at, added, judge


def _behind(bucket: dict[str, Any], address: str) -> dict[str, Any]:
    return bucket | {"client_kwargs": bucket["client_kwargs"] | {"endpoint_url": address}}


def _host_of(bucket: dict[str, Any]) -> tuple[str, int]:
    parts = urlsplit(bucket["client_kwargs"]["endpoint_url"])
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _said(sandbox: SandboxServer, store: str, options: dict[str, Any], count: int) -> dict[str, Any]:
    base_url = sandbox.base_url("happyhorse")
    return {"store": store, "options": options, "base_url": base_url, "count": count, "on_uncertain": "raise"}


def test_a_store_that_ignores_conditions_is_refused(
    sandbox: SandboxServer, bucket: dict[str, Any], tmp_path: Path, full: bool, record: Recorder
) -> None:
    """Two processes buy on a store that takes `If-None-Match` and writes over the file: both are refused, and nothing is sent."""
    rounds = 3 if full else 1
    verdicts: list[Verdict] = []
    with s3_proxy(_host_of(bucket), StoreFaults(random.Random(1), ignores_conditions=True)) as address:  # noqa: S311 -- no secret
        for number in range(rounds):
            store = f"s3://stack/{tmp_path.name}-{number}"
            for ended in buy(_said(sandbox, store, _behind(bucket, address), 1), tmp_path, 2):
                assert ended.code != 0
                assert "wrote over a file that it was to create, so two runs could buy the same job; use another store" in ended.err
            place = Store(url=store, options=bucket)
            assert asyncio.run(Journal(place).revisions()) == {}
            verdicts.append(asyncio.run(judge(sandbox, [], accounts_at(sandbox.url), place)))
    record("two processes on a store that ignores conditions: refused", added(verdicts), runs=2 * rounds)


def test_a_store_that_loses_its_answers_keeps_every_job(
    sandbox: SandboxServer, bucket: dict[str, Any], tmp_path: Path, full: bool, record: Recorder
) -> None:
    """Two or more processes buy the same pictures while writes go through unheard: one charge each, the same files, and no doubt left."""
    sandbox.settings(job_s=0.2)
    verdicts: list[Verdict] = []
    runs = 0
    for number in range(8 if full else 1):
        sandbox.reset()
        moments = random.Random(20261124 + number)  # noqa: S311 -- the same moments each time
        processes, count = (moments.randint(2, 4), moments.randint(1, 3)) if full else (2, 1)
        faults = StoreFaults(moments, delay_s=0.05, loses_writes=1.0, in_a_row=1)
        if full:
            faults = StoreFaults(moments, moments.uniform(0.02, 0.2), moments.uniform(0, 0.5), moments.uniform(0.5, 1))
        store = f"s3://stack/{tmp_path.name}-{number}"
        with s3_proxy(_host_of(bucket), faults) as address:
            first, *others = [ended.made for ended in buy(_said(sandbox, store, _behind(bucket, address), count), tmp_path, processes)]
        runs += processes
        assert others == [first] * (processes - 1)
        assert faults.lost["PUT"]
        asked: list[Asked] = [("happyhorse", TextToImage(model="gpt-image-2", prompt=f"Horse {one}")) for one in range(count)]
        verdicts.append(asyncio.run(judge(sandbox, asked, accounts_at(sandbox.url), Store(url=store, options=bucket))))
    record("processes on a store that delays, and loses answers", added(verdicts), runs=runs)
