"""What a page shows of jobs, as JSON holds it: never more than `happyhorse jobs show` prints, and no machine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, iter_media
from prefect_happyhorse.domain.texts import harmless, without_queries
from prefect_happyhorse.engine.jobs.hints import advice
from prefect_happyhorse.engine.journal.index import Line
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.media.formats import MediaFormat, format_of, media_type_of

__all__ = ["as_json", "is_hash", "job_view", "outputs_of", "row", "shown_type"]

_HASH = re.compile(r"[0-9a-f]{64}")
# A picture as SVG is a program, and browsers do not show TIFF.
_SHOWN: frozenset[MediaFormat] = frozenset({"jpeg", "png", "webp", "bmp", "gif", "avif", "mp4", "mov", "webm", "mp3", "wav"})


def as_json(facts: Mapping[str, Any]) -> bytes:
    """Facts in JSON: no control that moves what stands around it, and no address that anybody can open by it."""
    return without_queries(harmless(json.dumps(facts, ensure_ascii=False), in_json=True)).encode("utf-8", "replace")


def is_hash(text: str) -> bool:
    """Whether a text is a SHA-256: the journal is read by more than those who wrote it, and thumbnails are named by it."""
    return _HASH.fullmatch(text) is not None


def shown_type(asset: MediaAsset) -> str | None:
    """The media type as which a browser may show a file; None for what it may only save."""
    form = format_of(asset.media_type)
    return media_type_of(form) if form in _SHOWN else None


def outputs_of(entry: JournalEntry) -> tuple[MediaAsset, ...]:
    """The stored outputs of a job, in the order by which they are numbered."""
    return () if entry.asset is None else (entry.asset, *entry.asset.siblings)


def row(entry: JournalEntry) -> dict[str, Any]:
    """What a list shows of a job."""
    line = Line.of(entry)
    outputs = outputs_of(entry)
    return {
        "digest": entry.digest,
        "state": entry.state,
        "open": entry.is_open,
        "gateway": entry.gateway,
        "model": entry.request.model,
        "capability": entry.request.capability,
        "task": line.task_id,
        "take": entry.take,
        "begun": _time(entry.begun_at),
        "cost": _cost(line.cost, line.currency),
        "prompt": entry.request.prompt or "",
        "labels": dict(entry.labels),
        "outputs": len(outputs),
        **(_picture(outputs[0]) if outputs else {}),
    }


def _picture(asset: MediaAsset) -> dict[str, Any]:
    thumbnail = asset.sha256 if asset.kind != "audio" and is_hash(asset.sha256) else None
    return {"kind": asset.kind, "thumbnail": thumbnail, "width": asset.width, "height": asset.height, "seconds": asset.duration_s}


def _cost(amount: Decimal | None, currency: str | None) -> str:
    if amount is None:
        return "unknown"
    return "nothing" if currency is None else f"{amount:f} {currency}"


def _time(at: datetime) -> str:
    return at.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def job_view(entry: JournalEntry, *, store: str | None) -> dict[str, Any]:
    """What a job's own page shows.

    Args:
        entry: The job.
        store: The URL of its store, for the commands; None to leave it out.
    """
    line = Line.of(entry)
    estimate = entry.estimate
    what_now = advice(entry)
    if store is not None:
        what_now = what_now.replace("`happyhorse jobs ", f"`happyhorse jobs --store {shlex.quote(store.removeprefix('file://'))} ")
    elif entry.asset is not None:
        what_now = "It is kept. Another `take` of the same request makes another variation."
    return row(entry) | {
        "account": entry.account,
        "request": _fields(entry),
        "inputs": [_input(name, position, medium) for name, position, medium in iter_media(entry.request)],
        "files": [_file(asset) for asset in outputs_of(entry)],
        "history": _history(entry),
        "costs": {
            "estimated": _cost(line.cost, line.currency),
            "reckoned": estimate.reason if estimate is not None and (line.cost is None or line.currency is not None) else None,
            "billed": None if line.billed is None else _cost(line.billed, line.currency),
            "by_maker": line.by_maker,
        },
        "polls": None if entry.result is None else entry.result.polls,
        "usage": None if entry.result is None else entry.result.usage,
        "request_id": None if entry.job is None else entry.job.request_id,
        "flow_run": entry.flow_run_id,
        "reason": _reason(entry),
        "aside": list(entry.aside),
        "waits_here": entry.revision == 0,
        "what_now": what_now,
    }


def _fields(entry: JournalEntry) -> list[list[str]]:
    """What the request sets, its prompt and media aside."""
    facts = entry.request.model_dump(mode="json", exclude_none=True, exclude={*MEDIA_FIELDS, "prompt", "model", "capability"})
    options: dict[str, object] = facts.pop("options", {})
    return [[name, _text(value)] for name, value in {**facts, **{f"options.{name}": value for name, value in options.items()}}.items()]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _input(name: str, position: int | None, medium: MediaAsset | str) -> dict[str, Any]:
    field = name if position is None else f"{name} @{position + 1}"
    if isinstance(medium, str):
        # An input may be inside the request itself.
        shown = medium if not medium.startswith("data:") else f"{medium.partition(',')[0]}, {len(medium):,} characters"
        return {"field": field, "text": shown}
    made_by = None if medium.job is None else {"digest": medium.job.digest, "model": medium.job.model, "prompt": medium.job.prompt or ""}
    return {"field": field, "text": medium.uri, "sha256": medium.sha256, "job": made_by, **_picture(medium)}


def _file(asset: MediaAsset) -> dict[str, Any]:
    facts = {"media_type": asset.media_type, "bytes": asset.bytes, "sha256": asset.sha256, "fps": asset.fps, "uri": asset.uri}
    told = {"shown": shown_type(asset) is not None, "c2pa": asset.c2pa, "warnings": list(asset.warnings)}
    return _picture(asset) | facts | told


def _history(entry: JournalEntry) -> list[list[str]]:
    """When what is known of it happened, the first first."""
    times = {
        "submit begun": entry.begun_at,
        "accepted by the gateway": entry.job and entry.job.submitted_at,
        "finished": entry.result and entry.result.finished_at,
        "ended without a result": entry.failure and entry.failure.at if entry.state in {"failed", "expired"} else None,
        "outcome unknown": entry.failure and entry.failure.at if entry.state == "uncertain" else None,
        "asked to cancel": entry.cancellation and entry.cancellation.at,
        f"{entry.state}, as the journal has it": entry.updated_at,
    }
    return [[what, _time(at)] for what, at in sorted(((what, at) for what, at in times.items() if at), key=lambda one: one[1])]


def _reason(entry: JournalEntry) -> list[list[str]]:
    """Why it has no result, in the words of the provider."""
    told: Sequence[tuple[str, str | None]] = ()
    if entry.failure is not None:
        failure = entry.failure
        told = (("what happened", failure.message), ("code", failure.code), ("state at the provider", failure.provider_status))
    if entry.cancellation is not None:
        answer = "cancel accepted" if entry.cancellation.accepted else "cancel refused"
        told = (*told, (answer, entry.cancellation.message))
    return [[what, text] for what, text in told if text]
