"""One accepted submit: where it stands, what it made, and its line in the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody
from prefect_happyhorse.sandbox.media.probe import Probe
from prefect_happyhorse.sandbox.media.render import MediaSpec

__all__ = ["Failure", "Job", "LedgerEntry", "LedgerState", "Meaning", "fingerprint", "read_ratio"]

LedgerState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Meaning = Literal["invalid", "authentication", "moderation", "quota", "rate_limit", "not_found", "missing_task", "unsupported", "internal"]

_QUEUED_SHARE = 0.2
_FOLLOWS_INPUT = frozenset({"image_to_video", "first_last_frame", "video_extension", "video_edit"})
_EDITED_S = 15.0
_REFERENCE_S = 5.0
_DEFAULT_S = 5.0


@dataclass(eq=False)
class Failure(Exception):
    """Why a call is answered with an error of the provider, or why a job ended without a result."""

    meaning: Meaning
    message: str


class LedgerEntry(BaseModel):
    """One charge: a job that was accepted."""

    model_config = ConfigDict(frozen=True)

    gateway: str = Field(description="Id of the gateway.")
    account: str = Field(description="First eight hexadecimal digits of the SHA-256 of the key, or of the app id that got the token.")
    model: str
    capability: str = Field(description="The first capability whose wire fields the body fits; some share them all.")
    task_id: str
    prompt: str | None = Field(default=None, description="What was asked for, as a provider's console shows it.")
    digest: str = Field(description="SHA-256 of the body, as JSON with sorted keys.")
    charged_at: float = Field(description="When it was accepted, in Unix seconds.")
    refunded: bool = Field(description="Whether the charge was taken back, because the job failed or was cancelled.")
    state: LedgerState
    polls: int = Field(description="How often it was asked for.")
    downloads: int = Field(description="How often one of its results was fetched; every range counts.")
    inputs: int = Field(description="How many input media it has.")
    prompt_cut: tuple[int, int] | None = Field(default=None, description="The prompt's length before and after a silent cut.")


def fingerprint(key: str) -> str:
    """How a key is named where the key itself must not appear."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@dataclass(slots=True, eq=False)
class Job:
    """One accepted submit."""

    body: ValidatedBody
    account: str
    task_id: str
    request_id: str
    digest: str
    submitted_at: float
    job_s: float
    settings: SandboxSettings
    probes: tuple[Probe, ...] = ()
    input_check: asyncio.Task[None] | None = None
    failure: Failure | None = None
    finished_at: float | None = None
    cancelled: bool = False
    deleted: bool = False
    polls: int = 0
    downloads: int = 0
    reported: LedgerState = "queued"
    signatures: dict[int, str] = field(default_factory=dict[int, str])
    expirations: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def route(self) -> Route:
        """The route that the job came by."""
        return self.body.route

    @property
    def results(self) -> int:
        """How many results it has when it succeeds."""
        return int(self.body.number("n") or 1) if self.route.kind == "image" else 1

    @property
    def duration_s(self) -> float:
        """The playing time of its results in seconds; 0 for a picture."""
        if self.route.kind == "image":
            return 0.0
        clip = next((found.duration_s for found in self.probes if found.kind == "video" and found.duration_s), None)
        if self.route.capability == "video_edit" and clip:
            return round(min(clip, _EDITED_S), 3)
        return min(60.0, max(1.0, self.body.number("duration") or _DEFAULT_S))

    def billed_s(self) -> tuple[float, float, float]:
        """The seconds that are billed, those of what was put in among them, and those of the result."""
        seen = sum((min(found.duration_s or 0.0, _EDITED_S) for found in self.probes if found.kind == "video"), 0.0)
        if self.route.capability == "reference_to_video":
            seen = min(seen, _REFERENCE_S)
        elif self.route.capability != "video_edit":
            seen = 0.0
        return round(seen + self.duration_s, 3), round(seen, 3), self.duration_s

    def _size(self) -> tuple[int, int]:
        """Width and height of its results, from what the request asks and the inputs are."""
        body = self.body
        asked = (body.values.get("size"), body.text("aspect_ratio"), body.text("size"))
        ratio = next(filter(None, map(read_ratio, asked)), 16 / 9 if self.route.kind == "video" else 1.0)
        seen = next((found.width / found.height for found in self.probes if found.width and found.height), None)
        if seen and self.route.capability in _FOLLOWS_INPUT and read_ratio(body.values.get("aspect_ratio")) is None:
            ratio = _bounded(seen)
        stretch = max(ratio, 1 / ratio)
        short = max(self.settings.long_side_px / stretch, self.settings.min_short_side_px)
        long, short = (max(2, round(side / 2) * 2) for side in (short * stretch, short))
        return (long, short) if ratio >= 1 else (short, long)

    def state(self, now: float) -> LedgerState:
        """Where the job stands."""
        if self.cancelled:
            return "cancelled"
        elapsed = now - self.submitted_at
        is_checked = self.input_check is None or self.input_check.done()
        if self.finished_at is not None or (elapsed >= self.job_s and is_checked):
            return "failed" if self.failure else "succeeded"
        return "queued" if elapsed < self.job_s * _QUEUED_SHARE else "running"

    def progress(self, now: float) -> float:
        """How far the job is."""
        if self.state(now) in {"succeeded", "failed"}:
            return 1.0
        return 0.0 if self.job_s == 0 else min(0.99, max(0.0, (now - self.submitted_at) / self.job_s))

    def fail(self, failure: Failure, now: float) -> None:
        """End the job without a result, at once."""
        self.failure = failure
        self.finished_at = now

    def spec(self, index: int) -> MediaSpec:
        """What one of the job's results looks like."""
        body, duration_s = self.body, self.duration_s
        width, height = self._size()
        asked = body.text("options.output_format")
        plain = MediaSpec(
            kind="video" if self.route.kind == "video" else "image",
            format="mp4" if self.route.kind == "video" else "jpeg" if asked == "jpeg" else "webp" if asked == "webp" else "png",
            width=width,
            height=height,
            duration_s=duration_s,
            fps=self.settings.fps,
            quality=max(1, min(100, int(body.number("options.output_compression") or 90))),
        )
        if self.settings.media == "tiny":
            return plain
        details = [body.text("size"), body.text("resolution"), body.text("aspect_ratio")]
        details += [f"{duration_s:g} s"] if duration_s else []
        details += [f"seed {body.values['seed']}"] if "seed" in body.values else []
        details += [f"{index + 1} of {self.results}"] if self.results > 1 else []
        return replace(
            plain,
            heading=f"{self.route.facts.title} \u00b7 {self.route.capability.replace('_', ' ')}".upper(),
            model=self.route.model,
            prompt=body.text("prompt") or "",
            footer=" \u00b7 ".join(["sandbox", *filter(None, details)]),
            thumbnails=tuple((found.kind, found.thumbnail) for found in self.probes if found.thumbnail is not None),
        )

    def entry(self, now: float) -> LedgerEntry:
        """The job's line in the ledger."""
        state = self.state(now)
        return LedgerEntry(
            gateway=self.route.gateway,
            account=self.account,
            model=self.route.model,
            capability=self.route.capability,
            task_id=self.task_id,
            prompt=self.body.text("prompt"),
            digest=self.digest,
            charged_at=self.submitted_at,
            refunded=state in {"failed", "cancelled"},
            state=state,
            polls=self.polls,
            downloads=self.downloads,
            inputs=len(self.body.inputs),
            prompt_cut=self.body.prompt_cut,
        )


def read_ratio(text: object) -> float | None:
    """Width to height from the ways in which requests write it; None where they write none."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*[:x*×]\s*([0-9]+(?:\.[0-9]+)?)\s*", str(text or ""), re.IGNORECASE)
    width, height = map(float, match.groups()) if match else (0, 0)
    return _bounded(width / height) if width and height else None


def _bounded(ratio: float) -> float:
    return min(4.0, max(0.25, ratio))
