"""The picture that a job returns: a card that says what was asked, over a landscape, with the input media on it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from PIL import Image, ImageDraw, ImageOps

from prefect_happyhorse.sandbox.media.lettering import Font, font_for, readable, wrap
from prefect_happyhorse.sandbox.media.probe import Thumb
from prefect_happyhorse.sandbox.media.scene import Scene

__all__ = ["Card", "MediaSpec"]

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class MediaSpec:
    """Everything that decides the bytes of a result: equal specs are made once."""

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
    number: int = 1
    thumbs: tuple[Thumb, ...] = ()

    @cached_property
    def key(self) -> str:
        """The same for equal specs, as a file name."""
        parts = [getattr(self, name) for name in self.__dataclass_fields__ if name != "thumbs"]
        return hashlib.sha256(repr((parts, [thumb.sha256 for thumb in self.thumbs])).encode()).hexdigest()[:32]

    @property
    def suffix(self) -> str:
        """The end of the file's name, with its dot."""
        return ".jpg" if self.format == "jpeg" else f".{self.format}"

    @property
    def media_type(self) -> str:
        """The media type of the file."""
        return f"{self.kind}/{self.format}"


class Card:
    """Draws the pictures of a result.

    Args:
        spec: What to draw.
    """

    def __init__(self, spec: MediaSpec) -> None:
        self._spec = spec
        self._scene = Scene(spec.width, spec.height, f"{spec.model}\n{spec.prompt}\n{spec.number}")
        self._sky = self._scene.sky()
        self._sun = self._scene.sun()
        self._front = self._draw_front()

    @property
    def _unit(self) -> int:
        return max(4, round(min(self._spec.width, self._spec.height) / 40))

    def picture(self) -> Image.Image:
        """The card as a picture."""
        return self._compose(0.5)

    def frame(self, index: int, frames: int) -> Image.Image:
        """One picture of a video: the sun wanders, and a bar shows how far it is."""
        share = index / max(1, frames - 1)
        picture = self._compose(share)
        spec, unit = self._spec, self._unit
        draw = ImageDraw.Draw(picture)
        top = spec.height - max(3, unit // 2)
        draw.rectangle((0, top, spec.width, spec.height), fill=(0, 0, 0))
        draw.rectangle((0, top, round(spec.width * (index + 1) / frames), spec.height), fill=self._scene.accent)
        clock = f"{index / spec.fps:.1f} s"
        font = font_for(clock, round(unit * 1.6))
        corner = (spec.width - 2 * unit, top - unit)
        draw.text(corner, clock, font=font, anchor="rs", fill="white", stroke_width=1, stroke_fill="black")
        return picture

    def _compose(self, share: float) -> Image.Image:
        picture = self._sky.copy()
        picture.paste(self._sun, self._scene.sun_at(share), self._sun)
        picture.paste(self._front, (0, 0), self._front)
        return picture

    def _draw_front(self) -> Image.Image:
        front = self._scene.hills()
        if not self._spec.heading:
            return front
        text_box, media_box = self._boxes()
        if media_box is not None:
            self._draw_thumbs(front, media_box)
        self._draw_text(front, text_box)
        return front

    def _boxes(self) -> tuple[Box, Box | None]:
        """Where the text goes, and where the input media go."""
        width, height, edge = self._spec.width, self._spec.height, 2 * self._unit
        foot = height - round(2.4 * self._unit) if self._spec.kind == "video" else height - edge
        if not self._spec.thumbs:
            wide = round(width * 0.62) if width > 1.15 * height else width - edge
            return (edge, edge, wide, foot), None
        if width > 1.15 * height:
            middle = round(width * 0.47)
            return (edge, edge, middle, foot), (middle + edge, edge, width - edge, foot)
        middle = round(height * 0.44)
        return (edge, edge, width - edge, middle), (edge, middle + edge, width - edge, foot)

    def _draw_text(self, front: Image.Image, box: Box) -> None:
        spec, unit = self._spec, self._unit
        left, top, right, bottom = box
        inner = right - left - 3 * unit
        heading, model, footer = readable(spec.heading), readable(spec.model), readable(spec.footer)
        small = font_for(heading + footer, round(unit * 1.35))
        large = next((font for size in (2.7, 2.3, 2.0) if (font := font_for(model, round(unit * size))).getlength(model) <= inner), small)
        footer_lines = wrap(footer, small, inner, 2)
        room = bottom - top - round(unit * (10.0 + 1.8 * len(footer_lines)))
        lines, body, step = self._prompt_lines(readable(spec.prompt), inner, room)
        used = round(unit * (9.2 + 1.8 * len(footer_lines))) + step * len(lines)
        if spec.thumbs:
            bottom = min(bottom, top + used)
        else:
            # With nothing else on the card the sky is left free.
            top = max(top, bottom - used)
        panel = Image.new("RGBA", front.size, (0, 0, 0, 0))
        ImageDraw.Draw(panel).rounded_rectangle((left, top, right, bottom), radius=unit, fill=(14, 16, 24, 214))
        front.alpha_composite(panel)
        draw = ImageDraw.Draw(front)
        draw.rounded_rectangle((left, top, left + max(3, unit // 3), bottom), radius=max(1, unit // 6), fill=(*self._scene.accent, 255))
        x, y = left + round(1.7 * unit), top + round(1.3 * unit)
        for line in wrap(heading, small, inner, 1):
            draw.text((x, y), line, font=small, fill=(*self._scene.accent, 255))
        for line in wrap(model, large, inner, 1):
            draw.text((x, y + round(1.9 * unit)), line, font=large, fill="white")
        y += round(6.1 * unit)
        for line in lines:
            draw.text((x, y), line, font=body, fill=(232, 234, 240, 255))
            y += step
        y = bottom - round(unit * (1.8 * len(footer_lines) + 0.6))
        for line in footer_lines:
            draw.text((x, y), line, font=small, fill=(158, 164, 178, 255))
            y += round(1.8 * unit)

    def _prompt_lines(self, prompt: str, width: int, room: int) -> tuple[list[str], Font, int]:
        """The largest lettering in which the whole prompt has room, or the smallest with an ellipsis."""
        size = 2.3
        while True:
            font = font_for(prompt, round(self._unit * size))
            step = round(self._unit * size * 1.35)
            lines = wrap(prompt, font, width, max(1, room // step))
            if size < 1.5 or not lines or not lines[-1].endswith("\u2026"):
                return lines, font, step
            size -= 0.3

    def _draw_thumbs(self, front: Image.Image, box: Box) -> None:
        """The first medium large, the others in a row below it."""
        left, top, right, bottom = box
        first, *others = self._spec.thumbs
        gap = self._unit
        row = round((bottom - top) * 0.24) if others else 0
        self._frame_thumb(front, first, (left, top, right, bottom - row - (gap if others else 0)), 1)
        width = (right - left - gap * (len(others) - 1)) // max(1, len(others))
        for index, thumb in enumerate(others):
            start = left + index * (width + gap)
            self._frame_thumb(front, thumb, (start, bottom - row, start + width, bottom), index + 2)

    def _frame_thumb(self, front: Image.Image, thumb: Thumb, box: Box, number: int) -> None:
        left, top, right, bottom = box
        border = max(2, self._unit // 3)
        room = (max(1, right - left - 2 * border), max(1, bottom - top - 2 * border))
        small = Image.open(io.BytesIO(thumb.jpeg))
        picture = ImageOps.contain(small.convert("RGB"), room, Image.Resampling.LANCZOS)
        framed = ImageOps.expand(picture, border, "white")
        x = left + (right - left - framed.width) // 2
        y = top + (bottom - top - framed.height) // 2
        shadow = Image.new("RGBA", front.size, (0, 0, 0, 0))
        moved = (x + border, y + border, x + framed.width + border, y + framed.height + border)
        ImageDraw.Draw(shadow).rectangle(moved, fill=(0, 0, 0, 110))
        front.alpha_composite(shadow)
        front.paste(framed, (x, y))
        label = f"{number}" if thumb.kind == "image" else f"{number} video"
        self._label(front, label, (x + framed.width - border, y + border))

    def _label(self, front: Image.Image, text: str, corner: tuple[int, int]) -> None:
        """Write a label to the left of and below a corner."""
        font = font_for(text, round(self._unit * 1.4))
        draw = ImageDraw.Draw(front)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        pad = self._unit / 2
        x, y = corner[0] - (right - left) - 2 * pad, corner[1]
        draw.rectangle((x, y, corner[0] - 1, y + bottom - top + 2 * pad), fill=(14, 16, 24, 255))
        draw.text((x + pad - left, y + pad - top), text, font=font, fill="white")
