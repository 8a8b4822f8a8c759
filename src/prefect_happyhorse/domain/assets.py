"""What a job produced, and where its bytes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefect_happyhorse.domain.prices import Estimate

__all__ = ["AssetKind", "MediaAsset"]

AssetKind = Literal["image", "video", "audio"]


class MediaAsset(BaseModel):
    """A picture, video or sound that a job produced, safe to pass between tasks: it holds no bytes and no secret.

    Example:
        >>> asset = MediaAsset(kind="image", uri="file:///outputs/horse.png", media_type="image/png", bytes=3, sha256="00")
        >>> asset.kind
        'image'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AssetKind = Field(description="What it is: image, video or audio.")
    uri: str = Field(description="Where the bytes are kept, as an fsspec URL.")
    url: str | None = Field(default=None, description="The provider's own address of the result.")
    url_expires_at: datetime | None = Field(default=None, description="When the provider's address stops working.")
    media_type: str = Field(description="The media type, for example video/mp4.")
    bytes: int = Field(ge=0, description="The length in bytes.")
    sha256: str = Field(description="The SHA-256 of the bytes, in hexadecimal.")
    width: int | None = Field(default=None, description="The width in pixels.")
    height: int | None = Field(default=None, description="The height in pixels.")
    duration_s: float | None = Field(default=None, description="The playing time in seconds.")
    fps: float | None = Field(default=None, description="Frames per second.")
    gateway: str | None = Field(default=None, description="The gateway of the job that it came from.")
    account: str | None = Field(default=None, description="The account label of that job.")
    capability: str | None = Field(default=None, description="The capability of that job.")
    model: str | None = Field(default=None, description="The model of that job.")
    task_id: str | None = Field(default=None, description="The provider's id of that job.")
    request_id: str | None = Field(default=None, description="The provider's request id of that job.")
    digest: str | None = Field(default=None, description="The request digest of that job.")
    prompt: str | None = Field(default=None, description="The prompt of that job.")
    submitted_at: datetime | None = Field(default=None, description="When that job was submitted.")
    estimate: Estimate | None = Field(default=None, description="What that job should have cost, by the price list at its submit.")
    usage: Mapping[str, Any] | None = Field(default=None, description="What the provider says that it counted for that job.")
    finished_at: datetime | None = Field(default=None, description="When that job was seen to be finished.")
    siblings: tuple[MediaAsset, ...] = Field(default=(), description="Further outputs of the same job, when n is above 1.")
