"""What was made, as the rows of a data set: one for each file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.journal.entry import JournalEntry

__all__ = ["COLUMNS", "ColumnType", "Sample", "request_json", "samples_of"]

ColumnType = Literal["text", "integer", "float", "time"]

COLUMNS: Mapping[str, ColumnType] = {
    "id": "text",
    "prompt": "text",
    "seed": "integer",
    "model": "text",
    "gateway": "text",
    "capability": "text",
    "digest": "text",
    "task_id": "text",
    "output": "integer",
    "uri": "text",
    "media_type": "text",
    "sha256": "text",
    "bytes": "integer",
    "width": "integer",
    "height": "integer",
    "duration_s": "float",
    # Text, since money is counted exactly.
    "cost": "text",
    "currency": "text",
    "submitted_at": "time",
    "finished_at": "time",
    "credentials": "text",
    "take": "integer",
    "request": "text",
}
"""The columns, and what each holds."""


class Sample(NamedTuple):
    """A file that was made, and its row."""

    asset: MediaAsset
    columns: dict[str, Any]

    @property
    def id(self) -> str:
        """The row's own id."""
        return str(self.columns["id"])

    @property
    def json_columns(self) -> dict[str, Any]:
        """The row as JSON has it."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in self.columns.items()}


def samples_of(entry: JournalEntry, ids: Mapping[str, str]) -> Iterator[Sample]:
    """The files of a job, each as a row; none where nothing of it is kept.

    What the job cost stands in the row of its first file alone, so that the column can be summed.
    """
    if entry.asset is None:
        return
    job, request, estimate = entry.job, entry.request, entry.estimate
    known = ids.get(entry.digest, entry.digest)
    for number, asset in enumerate((entry.asset, *entry.asset.siblings), start=1):
        cost = None if number > 1 or estimate is None or estimate.amount is None else f"{estimate.amount:f}"
        columns: dict[str, Any] = {
            "id": known if number == 1 else f"{known}-{number}",
            "prompt": request.prompt,
            # A larger one stands in the request alone.
            "seed": None if request.seed is None or abs(request.seed) >= 2**63 else request.seed,
            "model": request.model,
            "gateway": entry.gateway,
            "capability": request.capability,
            "digest": entry.digest,
            "task_id": None if job is None else job.task_id,
            "output": number,
            "uri": asset.uri,
            "media_type": asset.media_type,
            "sha256": asset.sha256,
            "bytes": asset.bytes,
            "width": asset.width,
            "height": asset.height,
            "duration_s": asset.duration_s,
            "cost": cost,
            "currency": None if cost is None or estimate is None else estimate.currency,
            "submitted_at": None if job is None else job.submitted_at,
            "finished_at": entry.asset.finished_at,
            "credentials": entry.credentials,
            "take": entry.take,
            "request": request_json(request),
        }
        yield Sample(asset, columns)


def request_json(request: GenerationRequest) -> str:
    """A request as JSON that reads as the very same one, with what was set alone."""
    fields = {"capability": request.capability, **request.model_dump(mode="json", exclude_defaults=True)}
    # Not pydantic's own writing, which has no word for an infinite number.
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
