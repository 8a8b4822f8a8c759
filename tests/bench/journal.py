"""A journal of very many jobs: making one, and reading it in a process of its own (`python -m tests.bench.journal FOLDER`)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path


def make_journal(folder: Path, jobs: int) -> None:
    """Entries as a run leaves them whose jobs are kept."""
    from prefect_happyhorse import Job, TextToVideo
    from prefect_happyhorse.engine.journal.entry import JournalEntry
    from prefect_happyhorse.engine.journal.owner import LeaseOwner

    owner = LeaseOwner()
    for number in range(jobs):
        # Spread over the folders as a request's own digest is.
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        request = TextToVideo(model="wan2.7-t2v", prompt=f"A white horse crosses field number {number} in the early morning fog")
        job = Job(
            gateway="happyhorse",
            account="bench",
            capability=request.capability,
            model=request.model,
            task_id=f"task-{number}",
            digest=digest,
            prompt=request.prompt,
            submitted_at=datetime.now(timezone.utc),
        )
        entry = JournalEntry(
            digest=digest, state="submitted", gateway="happyhorse", account="bench", take=1, request=request, owner=owner, job=job
        )
        # The second revision: the first was the intent.
        file = folder / "journal" / digest[:2] / f"{digest}.2.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(entry.model_dump_json(indent=2, exclude_none=True))


async def measure(folder: str) -> dict[str, float]:
    """Seconds to read the files of a journal, to read them as JSON, and to read them as entries."""
    from prefect_happyhorse.engine.journal.journal import Journal
    from prefect_happyhorse.engine.storage.store import Store

    files = sorted(Path(folder, "journal").glob("??/*.json"))
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


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1]))))
