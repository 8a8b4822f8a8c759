"""What all values have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

__all__ = ["AssetKind", "Resolution", "Value"]

AssetKind = Literal["image", "video", "audio"]
Resolution = Annotated[str, StringConstraints(to_lower=True)]


class Value(BaseModel):
    """The base of every value: it cannot be changed, and has no field that its class does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
