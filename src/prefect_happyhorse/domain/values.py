"""What all values have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["AssetKind", "Value"]

AssetKind = Literal["image", "video", "audio"]


class Value(BaseModel):
    """The base of every value: it cannot be changed, and has no field that its class does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
