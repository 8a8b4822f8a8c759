"""What a type checker has to accept of the public tasks, and the lines that it has to refuse; `test_typing.py` runs it, nobody imports it.

A refused line has an ignore for the very rule: where the checker does not complain, the ignore is unnecessary, which is an error too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

from prefect import flow, unmapped
from typing_extensions import assert_type

from prefect_happyhorse import (
    Budget,
    Export,
    GatewayCredentials,
    Job,
    JobResult,
    JobSnapshot,
    JournalEntry,
    MediaAsset,
    TextToImage,
    concat,
    download,
    export_assets,
    generate,
    open_jobs,
    poll,
    poll_once,
    submit,
)

T = TypeVar("T")


def takes(kind: type[T], value: T) -> None:
    """Where a value of a type is expected."""
    assert kind
    assert value


HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


@flow
def waiting(job: Job, result: JobResult, folder: Path) -> None:
    """Sync code has the results themselves."""
    a_job: Job = submit(HORSE, "happyhorse", folder, take=2, budget=Budget(amount=100, currency="CNY"))  # pyright: ignore[reportArgumentType]
    a_result: JobResult = poll(a_job, "happyhorse", deadline_s=60)
    asset: MediaAsset = download(a_result, "happyhorse")
    assert_type(generate(HORSE, "happyhorse").uri, str)
    assert_type(poll_once(job, "happyhorse").progress, "float | None")
    takes(list[JournalEntry], open_jobs())
    takes(MediaAsset, concat([asset, asset], title="film"))
    takes(Export, export_assets("shots.parquet", folder, ids={"digest": "horse"}))

    generate(HORSE)  # pyright: ignore[reportCallIssue]
    generate("A white horse", "happyhorse")  # pyright: ignore[reportArgumentType]
    generate(HORSE, "happyhorse", check=lambda one: one.width == 3 or "too wide", max_takes=2)
    generate(HORSE, "happyhorse", check=lambda one: one.width)  # pyright: ignore[reportArgumentType]
    generate(HORSE, "happyhorse", budget=100)  # pyright: ignore[reportArgumentType]
    generate(HORSE, "happyhorse", dead_line=60)  # pyright: ignore[reportCallIssue]
    poll(result, "happyhorse")  # pyright: ignore[reportArgumentType]
    download(download(result, "happyhorse"), "happyhorse")  # pyright: ignore[reportArgumentType]


@flow
async def awaiting(job: Job, block: GatewayCredentials) -> None:
    """Async code has coroutines of them."""
    assert_type(await submit(HORSE, block), Job)
    assert_type(await poll(job, block), JobResult)
    assert_type(await generate(HORSE, block), MediaAsset)
    assert_type(await poll_once(job, block), JobSnapshot)
    assert_type(await open_jobs(), list[JournalEntry])
    assert_type(await export_assets("shots.tar", format="webdataset"), Export)
    await export_assets("shots.csv", format="csv")  # pyright: ignore[reportArgumentType]
    assert_type(await asyncio.gather(generate(HORSE, block), generate(HORSE, block)), tuple[MediaAsset, MediaAsset])
    assert_type(await asyncio.create_task(generate(HORSE, block)), MediaAsset)
    await poll(await generate(HORSE, block), block)  # pyright: ignore[reportArgumentType]


def elsewhere(block: GatewayCredentials) -> None:
    """Futures and copies keep their types."""
    assert_type(generate.submit(HORSE, block).result(), MediaAsset)
    assert_type(generate.delay(HORSE, "happyhorse").result(), MediaAsset)
    generate.submit("A white horse", block)  # pyright: ignore[reportArgumentType]
    assert_type(generate.map([HORSE, HORSE], unmapped(block)).result(), list[MediaAsset])
    patient = generate.with_options(name="patient", retries=7)
    takes(MediaAsset, patient(HORSE, block))
    generate.with_options(retry=7)  # pyright: ignore[reportCallIssue]
