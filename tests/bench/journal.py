"""A journal of very many jobs: making one, serving one as S3, and reading it in a process of its own.

`python -m tests.bench.journal read FOLDER`, `... open URL`, `... budget URL` and `... serve PORT FOLDER`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

BEGUN = datetime(2026, 11, 1, tzinfo=timezone.utc)
DIGEST = "0" * 64


def make_journal(folder: Path, jobs: int, *, open_jobs: int) -> None:
    """Entries as runs leave them whose jobs are waited for or kept, one in so many of them open."""
    for digest, revision, content in _entries(jobs, open_jobs):
        # Plainly, since nothing here has to outlast a power cut.
        file = folder / "journal" / digest[:2] / f"{digest}.{revision}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def _entries(jobs: int, open_jobs: int) -> Iterator[tuple[str, int, str]]:
    intent, submitted, kept = _examples()
    for number in range(jobs):
        # Spread over the folders as a request's own digest is.
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        at = (BEGUN + timedelta(seconds=20 * number)).isoformat().replace("+00:00", "Z")
        is_open = number % (jobs // open_jobs) == 0
        for revision, example in ((1, intent), (2, submitted)) if is_open else ((4, kept),):
            text = example.replace("NUMBER", str(number)).replace(DIGEST, digest)
            yield digest, revision, text.replace(BEGUN.isoformat().replace("+00:00", "Z"), at)


def _examples() -> list[str]:
    """The files of a job before its submit, after it, and once its file is kept."""
    from prefect_happyhorse import Job, MediaAsset, TextToVideo
    from prefect_happyhorse.domain.jobs import JobResult, Output
    from prefect_happyhorse.domain.prices import Estimate
    from prefect_happyhorse.engine.journal.entry import JournalEntry
    from prefect_happyhorse.engine.journal.files import written_entry
    from prefect_happyhorse.engine.journal.owner import LeaseOwner

    request = TextToVideo(model="wan2.7-t2v", prompt="A white horse crosses field number NUMBER in the early morning fog")
    job = Job(
        gateway="happyhorse",
        account="bench",
        capability=request.capability,
        model=request.model,
        task_id="task-NUMBER",
        digest=DIGEST,
        prompt=request.prompt,
        submitted_at=BEGUN,
    )
    intent = JournalEntry(
        digest=DIGEST,
        state="intent",
        gateway="happyhorse",
        account="bench",
        take=1,
        request=request,
        estimate=Estimate.model_validate({"amount": "3.50", "currency": "CNY", "reason": "5 s at 0.70 CNY, list price of 2026-08-01"}),
        owner=LeaseOwner(at=BEGUN),
    )
    submitted = intent.becoming("submitted", job=job)
    outputs = (Output(kind="video", url="https://cdn.example.com/NUMBER.mp4"),)
    asset = MediaAsset(kind="video", uri="file:///outputs/NUMBER.mp4", media_type="video/mp4", bytes=5_000_000, sha256=DIGEST, job=job)
    kept = submitted.becoming("kept", result=JobResult(job=job, outputs=outputs, finished_at=BEGUN, polls=4), asset=asset)
    return [written_entry(one).decode() for one in (intent, submitted, kept)]


async def read(folder: str) -> dict[str, float]:
    """Seconds to read the files of a journal, to read them as JSON, and to read them as entries."""
    from prefect_happyhorse.engine.journal.journal import Journal
    from prefect_happyhorse.engine.storage.store import Store

    files = sorted(Path(folder, "journal").glob("??/*.2.json"))
    started = time.perf_counter()
    for file in files:
        file.read_bytes()
    read = time.perf_counter()
    for file in files:
        json.loads(file.read_bytes())
    parsed = time.perf_counter()
    listing = await Journal(Store(url=folder)).entries()
    done = time.perf_counter()
    if len(listing.entries) != len(files) or listing.unreadable:
        raise RuntimeError(f"{len(listing.entries)} entries of {len(files)} files, {len(listing.unreadable)} of them unreadable")
    return {"read_s": read - started, "parse_s": parsed - read, "entries_s": done - parsed}


async def find_open(url: str) -> dict[str, float]:
    """What the flow `collect` begins with: the open entries of a journal."""
    from prefect_happyhorse.engine.journal.index import open_entries
    from prefect_happyhorse.engine.journal.journal import Journal
    from prefect_happyhorse.engine.storage.store import Store

    return await _measured(lambda: open_entries(Journal(Store(url)), tidy=True))


async def check_budget(url: str) -> dict[str, float]:
    """What the first submit of a process with a budget begins with: the sum of a journal."""
    from prefect_happyhorse.engine.journal.budget import Budget, BudgetTracker
    from prefect_happyhorse.engine.journal.entry import JournalEntry
    from prefect_happyhorse.engine.journal.journal import Journal
    from prefect_happyhorse.engine.storage.store import Store

    tracker = BudgetTracker(Budget.model_validate({"amount": "1e9", "currency": "CNY"}), Journal(Store(url)))
    # As if it were the next job that is bought.
    intent = JournalEntry.model_validate_json(_examples()[0])
    return await _measured(lambda: tracker.admit(intent))


async def _measured(work: Callable[[], Coroutine[Any, Any, object]]) -> dict[str, float]:
    started = time.perf_counter()
    await work()
    wall_s, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * 1024}


def serve(port: str, folder: str) -> None:
    """An S3 store with the bucket `bench`, in which the files of a folder lie as if they had been put there one by one."""
    from moto.s3.models import s3_backends
    from moto.server import main

    bucket = s3_backends["123456789012"]["aws"]
    bucket.create_bucket("bench", "us-east-1")
    for file in Path(folder).rglob("*.json"):
        bucket.put_object("bench", f"outputs/{file.relative_to(folder).as_posix()}", file.read_bytes())
    main(["-H", "127.0.0.1", "-p", port])


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(*arguments)
    else:
        print(json.dumps(asyncio.run({"read": read, "open": find_open, "budget": check_budget}[what](*arguments))))
