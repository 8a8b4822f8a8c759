"""What a job produced, and where its bytes are stored."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, Field

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.values import AssetKind, Value

__all__ = ["MediaAsset"]

_MAX_INLINE_BYTES = 4 * 1024 * 1024
_TAGS = {
    "image": '<img src="{src}" style="max-width: 480px">',
    "video": '<video controls src="{src}" style="max-width: 480px"></video>',
    "audio": '<audio controls src="{src}"></audio>',
}


class MediaAsset(Value):
    """An image, video or sound that a job produced, safe to pass between tasks: it holds no bytes and no secret.

    Example:
        >>> asset = MediaAsset(kind="image", uri="file:///outputs/horse.png", media_type="image/png", bytes=3, sha256="00")
        >>> asset.kind, asset.job
        ('image', None)
    """

    kind: AssetKind = Field(description="What it is: image, video or audio.")
    uri: str = Field(description="Where the bytes are stored, as an fsspec URL.")
    url: str | None = Field(default=None, description="The provider's own URL of the result.")
    url_expires_at: AwareDatetime | None = Field(default=None, description="When the provider's URL stops working.")
    media_type: str = Field(description="The media type, for example video/mp4.")
    bytes: int = Field(ge=0, description="The length in bytes.")
    sha256: str = Field(description="The SHA-256 of the bytes, in hexadecimal.")
    width: int | None = Field(default=None, description="The width in pixels.")
    height: int | None = Field(default=None, description="The height in pixels.")
    duration_s: float | None = Field(default=None, description="The playing time in seconds.")
    fps: float | None = Field(default=None, description="Frames per second.")
    has_sound: bool | None = Field(default=None, description="Whether a video has a sound track; None where that is not known.")
    c2pa: bool | None = Field(
        default=None, description="Whether the file holds C2PA data, which say where it comes from; None where it was not looked for."
    )
    warnings: tuple[str, ...] = Field(default=(), description="What is not as it was asked for, or black, still or silent, as sentences.")
    job: Job | None = Field(default=None, description="The job that produced it; empty for a film that was joined here.")
    finished_at: AwareDatetime | None = Field(default=None, description="When that job was seen to be finished.")
    estimate: Estimate | None = Field(default=None, description="What that job should have cost, by the price list at its submit.")
    usage: Mapping[str, Any] | None = Field(default=None, description="What the provider says that it counted for that job.")
    siblings: tuple[MediaAsset, ...] = Field(default=(), description="Further outputs of the same job, when n is above 1.")

    @property
    def path(self) -> Path | None:
        """The file, where it lies on this machine's disk.

        Example:
            >>> asset = MediaAsset(kind="image", uri="file:///my horse.png", media_type="image/png", bytes=3, sha256="00")
            >>> asset.path.name
            'my horse.png'
        """
        # fsspec takes the rest as it stands: nothing in it is percent-encoded.
        return Path(self.uri.removeprefix("file://")) if self.uri.startswith("file://") else None

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from the job's submit until it was seen to be finished."""
        if self.job is None or self.finished_at is None:
            return None
        return (self.finished_at - self.job.submitted_at).total_seconds()

    def _repr_html_(self) -> str:
        """What a notebook shows: a small local file itself, and of any other its facts and a link."""
        size = f", {self.width}×{self.height}" if self.width and self.height else ""
        length = f", {self.duration_s:.1f} s" if self.duration_s is not None else ""
        facts = escape(f"{self.kind}{size}{length}, {self.bytes:,} bytes")
        place = escape(self.uri)
        link = f'<a href="{place}">{place}</a>' if self.uri.startswith(("http://", "https://", "file://")) else f"<code>{place}</code>"
        return f"<figure>{self._inline()}<figcaption>{facts}<br>{link}</figcaption></figure>"

    def _inline(self) -> str:
        if self.path is None or self.bytes > _MAX_INLINE_BYTES:
            return ""
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_INLINE_BYTES + 1)
        except OSError:
            return ""
        if len(content) > _MAX_INLINE_BYTES:
            return ""
        return _TAGS[self.kind].format(src=f"data:{escape(self.media_type)};base64,{base64.b64encode(content).decode()}")
