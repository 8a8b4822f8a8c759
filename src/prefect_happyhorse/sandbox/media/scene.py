"""The landscape behind every card: sky, sun and hills, in colours and shapes that follow from the request."""

from __future__ import annotations

import colorsys
import hashlib
import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageFilter

__all__ = ["Scene"]

RGB = tuple[int, int, int]


def _colour(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, Image.Resampling.LANCZOS)  # pyright: ignore[reportUnknownMemberType]  # its stub speaks of NumPy


@dataclass(frozen=True)
class Scene:
    """A landscape.

    Args:
        width: In pixels.
        height: In pixels.
        text: What it follows from; the same text gives the same landscape.
    """

    width: int
    height: int
    text: str

    def _random(self, part: str) -> Random:
        return Random(hashlib.sha256(f"{part}:{self.text}".encode()).digest())  # noqa: S311  # colours, not secrets

    @property
    def _hue(self) -> float:
        return self._random("hue").random()

    @property
    def accent(self) -> RGB:
        """A light colour that goes with the landscape."""
        return _colour(self._hue + 0.5, 0.35, 1.0)

    def sky(self) -> Image.Image:
        """The sky, from dark above to light at the horizon."""
        top, bottom = _colour(self._hue, 0.55, 0.42), _colour(self._hue + 0.09, 0.42, 0.96)
        column = Image.new("RGB", (1, 64))
        for row in range(64):
            share = (row / 63) ** 0.8
            column.putpixel((0, row), tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True)))
        return _resize(column, (self.width, self.height))

    def sun(self) -> Image.Image:
        """The sun with its glow."""
        radius = round(min(self.width, self.height) * 0.1)
        side = radius * 4
        glow = Image.new("L", (side, side), 0)
        ImageDraw.Draw(glow).ellipse((radius * 0.7, radius * 0.7, side - radius * 0.7, side - radius * 0.7), fill=110)
        glow = glow.filter(ImageFilter.GaussianBlur(radius * 0.45))
        disc = Image.new("L", (side * 2, side * 2), 0)
        ImageDraw.Draw(disc).ellipse((radius * 2, radius * 2, side * 2 - radius * 2, side * 2 - radius * 2), fill=255)
        glow.paste(255, mask=_resize(disc, (side, side)))
        sun = Image.new("RGBA", (side, side), (*_colour(self._hue + 0.12, 0.18, 1.0), 0))
        sun.putalpha(glow)
        return sun

    def sun_at(self, share: float) -> tuple[int, int]:
        """Where the sun stands."""
        side = round(min(self.width, self.height) * 0.1) * 4
        x = -side * 0.1 + share * (self.width - side * 0.8)
        y = self.height * 0.42 - math.sin(math.pi * (0.12 + 0.76 * share)) * self.height * 0.36 - side * 0.2
        return round(x), round(y)

    def hills(self) -> Image.Image:
        """Three rows of hills, the nearest darkest."""
        random = self._random("hills")
        scale = 2
        picture = Image.new("RGBA", (self.width * scale, self.height * scale), (0, 0, 0, 0))
        draw = ImageDraw.Draw(picture)
        for row in range(3):
            colour = _colour(self._hue + 0.02 * (2 - row), 0.5 + 0.08 * row, 0.62 - 0.17 * row)
            draw.polygon(self._ridge(random, row, scale), fill=(*colour, 255))
        return _resize(picture, (self.width, self.height))

    def _ridge(self, random: Random, row: int, scale: int) -> list[tuple[float, float]]:
        base = self.height * (0.62 + 0.13 * row)
        waves = [(random.uniform(0.6, 1.4) * (index + 1), random.uniform(0, 6.3), self.height * 0.055 / (index + 1)) for index in range(3)]
        points: list[tuple[float, float]] = [(0, self.height * scale)]
        for step in range(65):
            x = step / 64
            y = base + sum(tall * math.sin(often * x * 6.3 + phase) for often, phase, tall in waves)
            points.append((x * self.width * scale, y * scale))
        return [*points, (self.width * scale, self.height * scale)]
