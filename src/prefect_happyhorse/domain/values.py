"""What all values have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["AssetKind", "FrozenLabels", "Labels", "Resolution", "Value"]

AssetKind = Literal["image", "video", "audio"]
Resolution = Annotated[str, StringConstraints(to_lower=True)]


class FrozenLabels(dict[str, str]):
    """Labels as values hold them, which are frozen and may be the members of a set."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] -- a dict is not hashable, for it may change
        return hash(frozenset(self.items()))


Labels = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,62}$")],
        Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")],
    ],
    Field(max_length=20),
    AfterValidator(FrozenLabels),
]
"""What a job is called by, such as `{"project": "film", "shot": "12"}`: at most twenty, each a name in lower case and a short text."""


class Value(BaseModel):
    """The base of every value: it cannot be changed, and has no field that its class does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
