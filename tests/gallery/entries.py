"""Journals as runs leave them, written at once: entries in any state, their files and thumbnails."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult, Output
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import GenerationRequest, TextToImage
from prefect_happyhorse.engine.journal.entry import Failure, JournalEntry, JournalState
from prefect_happyhorse.engine.journal.files import written_entry
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.media.thumbnail import thumbnail_path

__all__ = ["BEGUN", "SIGNED", "digest_of", "kept", "place", "submitted", "uncertain"]

BEGUN = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
SIGNED = "https://cdn.example/horse.png?Expires=1&Signature=c2lnbmF0dXJl"


def digest_of(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def _entry(name: object, request: GenerationRequest | str, state: JournalState, at: int, **facts: Any) -> JournalEntry:
    made = TextToImage(model="gpt-image-2", prompt=request) if isinstance(request, str) else request
    return JournalEntry(
        digest=digest_of(name),
        state=state,
        gateway=facts.pop("gateway", "happyhorse"),
        account="studio",
        take=facts.pop("take", 1),
        request=made,
        estimate=Estimate(amount=facts.pop("amount", "3.50"), currency="CNY", reason="list price of 2026-08-01"),
        owner=LeaseOwner(at=BEGUN + timedelta(minutes=at)),
        updated_at=BEGUN + timedelta(minutes=at, seconds=30),
        revision=facts.pop("revision", 1),
        **facts,
    )


def uncertain(name: object, request: GenerationRequest | str = "A horse", *, at: int = 0, **facts: Any) -> JournalEntry:
    """A submit of which nobody knows the outcome."""
    failure = Failure(message="The connection broke.", task_id="t-1", at=BEGUN)
    return _entry(name, request, "uncertain", at, failure=failure, **facts)


def submitted(name: object, request: GenerationRequest | str = "A horse", *, at: int = 0, **facts: Any) -> JournalEntry:
    """A job that is waited for."""
    entry = _entry(name, request, "uncertain", at, **facts)
    job = Job(
        gateway=entry.gateway,
        account="studio",
        capability=entry.request.capability,
        model=entry.request.model,
        task_id=f"task-{name}",
        digest=entry.digest,
        prompt=entry.request.prompt,
        submitted_at=entry.begun_at + timedelta(seconds=2),
    )
    return entry.model_copy(update={"state": "submitted", "job": job})


def kept(
    folder: Path,
    name: object,
    request: GenerationRequest | str = "A horse",
    *,
    content: bytes = b"bytes",
    media_type: str = "image/png",
    thumbnail: bytes | None = None,
    url: str | None = None,
    **facts: Any,
) -> JournalEntry:
    """A job whose file is kept in a store's folder."""
    entry = submitted(name, request, **facts)
    assert entry.job is not None
    kind = media_type.partition("/")[0]
    path = f"2026-11-20/{name}.{media_type.partition('/')[2]}"
    place_file(folder / path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    if thumbnail is not None:
        place_file(folder / thumbnail_path(sha256), thumbnail)
    asset = MediaAsset.model_validate(
        {
            "kind": kind,
            "uri": f"file://{folder / path}",
            "media_type": media_type,
            "bytes": len(content),
            "sha256": sha256,
            "width": 640,
            "height": 480,
            "duration_s": 1.0 if kind == "video" else None,
            "job": entry.job,
            "url": url,
        }
    )
    outputs = (Output.model_validate({"kind": kind, "url": url or "https://cdn.example/x"}),)
    result = JobResult(job=entry.job, outputs=outputs, finished_at=entry.begun_at + timedelta(seconds=20), polls=4)
    return entry.model_copy(update={"state": "kept", "asset": asset, "result": result})


def place_file(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def place(folder: Path, *entries: JournalEntry) -> None:
    """Write entries as the files that their revisions are."""
    for entry in entries:
        file = folder / "journal" / entry.digest[:2] / f"{entry.digest}.{entry.revision}.json"
        place_file(file, written_entry(entry.checked()))
