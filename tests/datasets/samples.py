"""Manifests and journal entries for the tests: small real files, and every request that there can be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from hypothesis import strategies as st

from prefect_happyhorse.datasets import BadRow, Row, read_manifest
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, REQUEST_CLASSES, GenerationRequest, TextToImage
from prefect_happyhorse.engine.journal.entry import JournalEntry
from prefect_happyhorse.engine.journal.owner import LeaseOwner

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
HORSE = TextToImage(model="gpt-image-2", prompt="A horse")


def table(**columns: Sequence[Any]) -> pa.Table:
    return pa.table(dict(columns))


def write_table(path: Path, rows: pa.Table, form: str, *, rows_at_once: int = 100) -> str:
    """Write a table as Parquet, or as an Arrow file or stream; where it lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        pyarrow.parquet.write_table(rows, path, row_group_size=rows_at_once)
    else:
        opened = pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream
        with path.open("wb") as file, opened(file, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=rows_at_once)
    return str(path)


def read(manifest: str | Path, **how: Any) -> list[Row | BadRow]:
    return list(read_manifest(str(manifest), **how))


def requests(manifest: str | Path, **how: Any) -> list[GenerationRequest | str]:
    """The requests of a manifest; of a bad row what is told of it."""
    return [row.request if isinstance(row, Row) else row.error for row in read(manifest, **how)]


def write_lines(path: Path, *rows: dict[str, Any] | str) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def made(
    number: int,
    *,
    request: GenerationRequest = HORSE,
    content: bytes | None = None,
    uri: str = "memory://x/a.png",
    outputs: int = 1,
    **more: Any,
) -> JournalEntry:
    """An entry of a job whose files are kept."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    facts: dict[str, Any] = {"gateway": "happyhorse", "account": "studio"}
    job = Job(
        **facts,
        capability=request.capability,
        model=request.model,
        task_id=f"t-{number}",
        digest=digest,
        prompt=request.prompt,
        submitted_at=NOON,
    )
    content = f"bytes of {number}".encode() if content is None else content
    files = [
        MediaAsset(
            kind="image",
            uri=uri if position == 0 else f"{uri.removesuffix('.png')}-{position + 1}.png",
            media_type="image/png",
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            width=4,
            height=3,
            job=job,
            finished_at=NOON + timedelta(seconds=7.25),
        )
        for position in range(outputs)
    ]
    return JournalEntry(
        **facts,
        digest=digest,
        state="kept",
        take=more.pop("take", 1),
        request=request,
        owner=LeaseOwner(at=NOON),
        job=job,
        result=JobResult(job=job, outputs=(), finished_at=NOON, polls=1),
        asset=files[0].model_copy(update={"siblings": tuple(files[1:])}),
        estimate=Estimate(amount="0.10", currency="CNY", reason="list"),
        **more,
    )


_texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
_assets = st.builds(
    MediaAsset,
    kind=st.just("image"),
    uri=_texts,
    url=st.none() | _texts,
    url_expires_at=st.none() | st.datetimes(timezones=st.just(timezone.utc)),
    media_type=st.just("image/png"),
    bytes=st.integers(0, 2**62),
    sha256=_texts,
    duration_s=st.none() | st.floats(0, 1e6),
    estimate=st.none() | st.builds(Estimate, amount=st.decimals(0, 1000, places=3), currency=st.just("CNY"), reason=_texts),
    usage=st.none() | st.dictionaries(_texts, st.none() | st.integers() | _texts | st.booleans(), max_size=3),
)
_media = _texts | _assets
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": _texts,
    "prompt": _texts,
    "negative_prompt": st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    "resolution": st.sampled_from([None, "720p", "1K"]),
    "aspect_ratio": st.none() | _texts,
    "size": st.none() | _texts,
    "duration": st.none() | st.integers(),
    "seed": st.none() | st.integers(),
    "n": st.none() | st.integers(1, 9),
    "watermark": st.sampled_from([None, True, False]),
    "options": st.dictionaries(_texts, st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts, max_size=3),
}


def _request(kind: Any) -> st.SearchStrategy[GenerationRequest]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in kind.model_fields.items():
        if name in MEDIA_FIELDS:
            fields[name] = st.lists(_media, max_size=3) if "tuple" in str(field.annotation) else _media
        elif name != "capability":
            fields[name] = _FIELDS[name]
    return st.builds(kind, **fields)


any_request: st.SearchStrategy[GenerationRequest] = st.one_of(*map(_request, REQUEST_CLASSES.values()))
