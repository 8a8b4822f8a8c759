"""The picture that a job returns: a card that says what was asked, with the input media below."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from PIL import Image, ImageDraw, ImageOps

from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.sandbox.media.text import font_for, readable, wrap

__all__ = ["Card", "MediaSpec"]


@dataclass(frozen=True)
class MediaSpec:
    """Everything that decides the bytes of a result: equal specs are rendered once."""

    kind: Literal["image", "video"]
    format: Literal["png", "jpeg", "webp", "mp4"]
    width: int
    height: int
    duration_s: float
    fps: int
    quality: int
    heading: str = ""
    model: str = ""
    prompt: str = ""
    footer: str = ""
    thumbnails: tuple[tuple[AssetKind, bytes], ...] = ()

    @cached_property
    def key(self) -> str:
        """The same for equal specs, as a file name."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]

    @property
    def suffix(self) -> str:
        """The end of the file's name, with its dot."""
        return ".jpg" if self.format == "jpeg" else f".{self.format}"

    @property
    def media_type(self) -> str:
        """The media type of the file."""
        return f"{self.kind}/{self.format}"


class Card:
    """Draws the pictures of a result: another request gives another colour."""

    def __init__(self, spec: MediaSpec) -> None:
        self._spec = spec
        self._unit = max(4, round(min(spec.width, spec.height) / 40))
        hue = hashlib.sha256(f"{spec.model}\n{spec.prompt}\n{spec.footer}".encode()).digest()[0] / 256 * 360
        self._picture = Image.new("RGB", (spec.width, spec.height), f"hsv({hue}, 55%, 42%)")
        self._accent = f"hsv({hue + 180}, 35%, 100%)"
        if spec.heading:
            top = spec.height // 2 if spec.thumbnails else spec.height - 3 * self._unit
            self._draw_texts(top)
            self._draw_thumbnails(top)

    def picture(self) -> Image.Image:
        """The card as a picture."""
        return self._picture

    def frame(self, index: int, frames: int) -> Image.Image:
        """One picture of a video: a bar and a clock show how far it is."""
        picture, spec = self._picture.copy(), self._spec
        draw = ImageDraw.Draw(picture)
        top = spec.height - self._unit
        draw.rectangle((0, top, round(spec.width * (index + 1) / frames), spec.height), fill=self._accent)
        clock = f"{index / spec.fps:.1f} s"
        draw.text((spec.width - self._unit, top), clock, font=font_for(clock, 1.6 * self._unit), anchor="rs", fill="white")
        return picture

    def _draw_texts(self, bottom: int) -> None:
        spec, unit, y = self._spec, self._unit, self._unit
        draw = ImageDraw.Draw(self._picture)
        room = max(1, (bottom - 10 * unit) // round(2.3 * unit))
        texts = ((spec.heading, 1.4, self._accent, 1), (spec.model, 2.2, "white", 1), (spec.prompt, 1.7, "white", room))
        for text, size, colour, max_lines in (*texts, (spec.footer, 1.4, "silver", 2)):
            shown = readable(text)
            font = font_for(shown, size * unit)
            for line in wrap(shown, font, spec.width - 2 * unit, max_lines):
                draw.text((unit, y), line, font=font, fill=colour)
                y += round(1.35 * size * unit)

    def _draw_thumbnails(self, top: int) -> None:
        """The inputs in a row, each with its number."""
        spec, draw = self._spec, ImageDraw.Draw(self._picture)
        for index, (kind, jpeg) in enumerate(spec.thumbnails):
            width = spec.width // len(spec.thumbnails)
            small = ImageOps.contain(Image.open(io.BytesIO(jpeg)), (max(1, width - 4), spec.height - top - 2 * self._unit))
            self._picture.paste(small, (index * width, top))
            label = f"{index + 1}" if kind == "image" else f"{index + 1} video"
            font = font_for(label, 1.6 * self._unit)
            draw.text((index * width + 4, top), label, font=font, fill="white", stroke_width=2, stroke_fill="black")
