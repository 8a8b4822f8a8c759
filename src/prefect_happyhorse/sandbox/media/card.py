"""The picture that a job returns: a card that says what was asked, with the input media on it."""

from __future__ import annotations

import colorsys
import hashlib
import io
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from PIL import Image, ImageDraw, ImageOps

from prefect_happyhorse.sandbox.media.probe import Thumbnail
from prefect_happyhorse.sandbox.media.text import font_for, readable, wrap

__all__ = ["Card", "MediaSpec"]

Box = tuple[int, int, int, int]
RGB = tuple[int, int, int]
_PROMPT_SIZES = (2.3, 2.0, 1.7, 1.4)


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
    thumbnails: tuple[Thumbnail, ...] = ()

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
    """Draws the pictures of a result."""

    def __init__(self, spec: MediaSpec) -> None:
        self._spec = spec
        self._unit = max(4, round(min(spec.width, spec.height) / 40))
        hue = hashlib.sha256(f"{spec.model}\n{spec.prompt}\n{spec.number}".encode()).digest()[0] / 256
        self._accent, self._panel = _colour(hue + 0.5, 0.35, 1.0), _colour(hue, 0.6, 0.2)
        gradient = Image.linear_gradient("L").resize((spec.width, spec.height))  # pyright: ignore[reportUnknownMemberType]  # NumPy in its stub
        self._picture = ImageOps.colorize(gradient, _colour(hue, 0.55, 0.42), _colour(hue + 0.09, 0.42, 0.96))  # pyright: ignore[reportArgumentType]  # its stub wants text
        if spec.heading:
            self._draw()

    def picture(self) -> Image.Image:
        """The card as a picture."""
        return self._picture

    def frame(self, index: int, frames: int) -> Image.Image:
        """One picture of a video: a bar and a clock show how far it is."""
        picture, spec, unit = self._picture.copy(), self._spec, self._unit
        draw = ImageDraw.Draw(picture)
        top = spec.height - unit
        draw.rectangle((0, top, spec.width, spec.height), fill="black")
        draw.rectangle((0, top, round(spec.width * (index + 1) / frames), spec.height), fill=self._accent)
        clock = f"{index / spec.fps:.1f} s"
        corner = (spec.width - unit, top - unit // 2)
        draw.text(corner, clock, font=font_for(clock, unit * 1.6), anchor="rs", fill="white", stroke_width=1, stroke_fill="black")
        return picture

    def _draw(self) -> None:
        """The text at the left and the inputs at the right, or above and below where there is more height than width."""
        spec, unit = self._spec, self._unit
        right, bottom = spec.width - unit, spec.height - 3 * unit
        if not spec.thumbnails:
            self._draw_text((unit, unit, right, bottom))
        elif spec.width > spec.height:
            self._draw_text((unit, unit, spec.width // 2, bottom))
            self._draw_thumbnails((spec.width // 2 + unit, unit, right, bottom))
        else:
            self._draw_text((unit, unit, right, spec.height // 2))
            self._draw_thumbnails((unit, spec.height // 2 + unit, right, bottom))

    def _draw_text(self, box: Box) -> None:
        spec, unit = self._spec, self._unit
        left, top, right, bottom = box
        ImageDraw.Draw(self._picture).rectangle(box, fill=self._panel)
        x, width, end = left + unit, right - left - 2 * unit, bottom - 6 * unit
        y = self._write(spec.heading, (x, top + unit), width, size=1.35, colour=self._accent)
        y = self._write(spec.model, (x, y), width, size=2.3, colour=(255, 255, 255))
        prompt = readable(spec.prompt)
        room = {size: max(1, int((end - y) / (1.35 * unit * size))) for size in _PROMPT_SIZES}
        fitting = (n for n in room if len(wrap(prompt, font_for(prompt, unit * n), width, room[n] + 1)) <= room[n])
        size = next(fitting, _PROMPT_SIZES[-1])
        self._write(prompt, (x, y + unit), width, size=size, colour=(232, 234, 240), max_lines=room[size])
        self._write(spec.footer, (x, bottom - 5 * unit), width, size=1.35, colour=(158, 164, 178))

    def _write(self, text: str, at: tuple[int, int], width: int, *, size: float, colour: RGB, max_lines: int = 2) -> int:
        """Write a text in at most so many lines, and say where the next one has room."""
        x, y = at
        shown = readable(text)
        font = font_for(shown, self._unit * size)
        draw = ImageDraw.Draw(self._picture)
        for line in wrap(shown, font, width, max_lines):
            draw.text((x, y), line, font=font, fill=colour)
            y += round(self._unit * size * 1.35)
        return y

    def _draw_thumbnails(self, box: Box) -> None:
        """The inputs in a grid, each with its number."""
        left, top, right, bottom = box
        width, height, count = max(1, right - left), max(1, bottom - top), len(self._spec.thumbnails)
        columns = min(count, max(1, round(math.sqrt(count * width / height))))
        rows = math.ceil(count / columns)
        cell = (max(1, width // columns - 4), max(1, height // rows - 4))
        for index, thumbnail in enumerate(self._spec.thumbnails):
            small = ImageOps.contain(Image.open(io.BytesIO(thumbnail.jpeg)), cell)
            corner = (left + index % columns * (cell[0] + 4), top + index // columns * (cell[1] + 4))
            self._picture.paste(small, corner)
            label = f"{index + 1}" if thumbnail.kind == "image" else f"{index + 1} video"
            at = (corner[0] + 4, corner[1] + 2)
            draw = ImageDraw.Draw(self._picture)
            draw.text(at, label, font=font_for(label, self._unit * 1.6), fill="white", stroke_width=2, stroke_fill="black")


def _colour(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
