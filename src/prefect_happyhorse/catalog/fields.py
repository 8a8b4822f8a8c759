"""What a field of a request's body and a medium say about themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from prefect_happyhorse.domain.values import Value

__all__ = ["MediaItem", "MediaLimit", "WireField", "WireType"]

WireType = Literal["string", "integer", "number", "boolean", "url", "url[]", "file", "media[]", "messages"]
"""What a field holds; a `file` is a part of a form with the bytes of a medium in it."""

_MEDIA_ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "references", "first_frame", "last_frame"),
    "mask": ("mask",),
    "video": ("video", "clip"),
    "reference_video": ("reference_videos",),
    "audio": ("audio", "voice"),
}

_OneOrMany = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class MediaItem(Value, populate_by_name=True):
    """One kind of entry in an array of typed media, in the order of the array."""

    type: str = Field(description="The provider's word for the entry.")
    source: str = Field(alias="from", description="The request field that the entry comes from.")
    voice: bool = Field(default=False, description="Whether the request's voice goes into this entry as reference_voice.")
    apart: bool = Field(default=False, description="Whether it stands outside of the count of entries.")


class WireField(Value, populate_by_name=True):
    """One field of a request body: where it goes, what it comes from, and what may stand in it."""

    to: str = Field(description="Where it goes in the body; a dot steps into an object.")
    source: _OneOrMany = Field(default=(), alias="from", description="Request fields that it comes from; empty when never sent.")
    type: WireType = "string"
    required: bool = False
    const: int | str | None = Field(default=None, description="A value that is always sent.")
    values: tuple[int | str, ...] = Field(default=(), description="The values that the provider takes, as on the wire.")
    minimum: float | None = None
    maximum: float | None = None
    advised: tuple[float, float] | None = Field(default=None, description="Least and greatest value that the provider advises.")
    borrowed: str | None = Field(
        default=None, description="Whose its limits are where the provider's own document names none: DashScope's."
    )
    maximum_with: dict[str, float] = Field(default_factory=dict, description="A lower maximum beside a request field that is set.")
    without: tuple[str, ...] = Field(default=(), description="Request fields beside which the provider ignores it.")
    pixels: tuple[int, int] | None = Field(
        default=None, description="Least and most pixels of a size written as width*height; `values` are words in its place."
    )
    aspect: tuple[float, float] | None = Field(default=None, description="Least and greatest width to height of such a size.")
    max_chars: int | None = Field(default=None, description="How long a text may be, in weighted characters.")
    chinese_weight: int = Field(default=1, description="How many characters a Chinese character counts for.")
    render: Literal["upper", "number", "text", "size", "parts"] | None = Field(default=None, description="How the value is written.")
    pick: Literal["first", "rest"] | None = Field(default=None, description="Which of several media go here.")
    min_items: int | None = None
    max_items: int | None = None
    items: tuple[MediaItem, ...] = Field(default=(), description="The entries of an array of typed media.")
    default: int | str | bool | None = Field(default=None, description="What the provider assumes; never sent.")
    note: str | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> WireField:
        if (self.type == "media[]") != bool(self.items):
            raise ValueError(f"{self.to}: entries belong to media[] and media[] needs entries")
        if self.const is not None and self.source:
            raise ValueError(f"{self.to}: a constant comes from no request field")
        return self

    @property
    def option(self) -> str | None:
        """The name of the route's own extra that this field carries, or None."""
        if len(self.source) == 1 and self.source[0].startswith("options."):
            return self.source[0].removeprefix("options.")
        return None

    @property
    def source_names(self) -> tuple[str, ...]:
        """Every request field that can fill this field; a voice only ever goes along with a reference video."""
        return (*self.source, *(item.source for item in self.items))

    @property
    def request_fields(self) -> tuple[str, ...]:
        """Every request field that this field takes something from."""
        voices = ("voice",) if any(item.voice for item in self.items) else ()
        return (*self.source_names, *voices)


class MediaLimit(Value):
    """What a route takes as input media of one role."""

    role: Literal["image", "mask", "video", "reference_video", "audio"]
    formats: tuple[str, ...] = Field(default=(), description="Empty where the source sets no limit.")
    max_bytes: int
    max_count: int | None = None
    min_side_px: int | None = Field(default=None, description="Neither side may be shorter.")
    min_short_side_px: int | None = Field(default=None, description="The shorter side may not be shorter.")
    max_long_side_px: int | None = Field(default=None, description="The longer side may not be longer.")
    aspect: tuple[float, float] | None = Field(default=None, description="Least and greatest width to height.")
    duration_s: tuple[float, float] | None = Field(default=None, description="Least and greatest playing time.")
    fps_above: float | None = Field(default=None, description="The frame rate must be greater.")
    fps: tuple[float, float] | None = Field(default=None, description="Least and greatest frame rate.")
    advised_formats: tuple[str, ...] = ()
    advised_duration_s: tuple[float, float] | None = None
    advised_codec: str | None = None
    note: str | None = None

    @property
    def request_fields(self) -> tuple[str, ...]:
        """The request fields that this limit is about."""
        return _MEDIA_ROLES[self.role]
