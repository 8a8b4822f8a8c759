"""How large and how long a result is, from what the request asks and the inputs are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody
from prefect_happyhorse.sandbox.media.probe import Probe

__all__ = ["duration_of", "read_ratio", "size_of"]

_FOLLOWS_INPUT = frozenset({"image_to_video", "first_last_frame", "video_extension", "video_edit"})
_EDITED_S = 15.0
_DEFAULT_S = 5.0


def read_ratio(text: object) -> float | None:
    """Width to height from the ways in which requests write it; None where they write none."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*[:x*×]\s*([0-9]+(?:\.[0-9]+)?)\s*", str(text or ""), re.IGNORECASE)
    width, height = map(float, match.groups()) if match else (0, 0)
    return _bounded(width / height) if width and height else None


def _bounded(ratio: float) -> float:
    return min(4.0, max(0.25, ratio))


def size_of(body: ValidatedBody, probes: Sequence[Probe], settings: SandboxSettings) -> tuple[int, int]:
    """Width and height of a job's results, in pixels."""
    ratio = _ratio(body, probes)
    stretch = max(ratio, 1 / ratio)
    short = max(settings.long_side_px / stretch, settings.min_short_side_px)
    long, short = (max(2, round(side / 2) * 2) for side in (short * stretch, short))
    return (long, short) if ratio >= 1 else (short, long)


def _ratio(body: ValidatedBody, probes: Sequence[Probe]) -> float:
    seen = next((found.ratio for found in probes if found.ratio), None)
    if seen and body.route.capability in _FOLLOWS_INPUT and read_ratio(body.values.get("aspect_ratio")) is None:
        return _bounded(seen)
    fallback = 16 / 9 if body.route.kind == "video" else 1.0
    return read_ratio(body.values.get("size")) or read_ratio(body.text("aspect_ratio")) or read_ratio(body.text("size")) or fallback


def duration_of(body: ValidatedBody, probes: Sequence[Probe]) -> float:
    """The playing time of a job's results in seconds; 0 for a picture."""
    if body.route.kind == "image":
        return 0.0
    clip = next((found.duration_s for found in probes if found.kind == "video" and found.duration_s), None)
    if body.route.capability == "video_edit" and clip:
        return round(min(clip, _EDITED_S), 3)
    return min(60.0, max(1.0, body.number("duration") or _DEFAULT_S))
