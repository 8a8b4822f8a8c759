"""The files of results: cards that say what was asked, with the input media below, rendered away from the event loop, equal ones once."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import av
from PIL import Image, ImageDraw, ImageFont, ImageOps

from prefect_happyhorse.domain.values import AssetKind

__all__ = ["Card", "MediaSpec", "RenderCache", "font_for", "readable", "wrap"]

Result = TypeVar("Result")

# Fonts that draw Chinese, by the file names under which systems keep them; Pillow looks in each system's own font folders.
_CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "NotoSansCJKsc-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "STHeiti Light.ttc", "msyh.ttc", "simhei.ttf", "simsun.ttc",
    "Arial Unicode.ttf",
)  # fmt: skip

_WIDE = "\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
_PIECES = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+|\s+")


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

    @property
    def suffix(self) -> str:
        """The end of the file's name, with its dot."""
        return ".jpg" if self.format == "jpeg" else f".{self.format}"

    @property
    def media_type(self) -> str:
        """The media type of the file."""
        return f"{self.kind}/{self.format}"


class RenderCache:
    """Two threads that render results into a folder, which goes when the sandbox does."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-media")
        self._rendered: dict[MediaSpec, asyncio.Task[Path]] = {}

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do a piece of media work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def begin(self, spec: MediaSpec) -> asyncio.Task[Path]:
        """Start to render a result, unless that was started before."""
        if spec not in self._rendered:
            self._rendered[spec] = asyncio.create_task(self._render(spec, f"{len(self._rendered)}{spec.suffix}"))
        return self._rendered[spec]

    async def render(self, spec: MediaSpec) -> Path:
        """The file of a result, rendered when it is not there yet."""
        # A caller that goes away must not take the work from the others that wait for it.
        return await asyncio.shield(self.begin(spec))

    async def _render(self, spec: MediaSpec, name: str) -> Path:
        self._folder = self._folder or TemporaryDirectory(prefix="happyhorse-sandbox-")
        path = Path(self._folder.name, name)
        await self.run(lambda: _write(spec, path))
        return path

    async def close(self) -> None:
        """Stop the threads and remove the folder."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for task in self._rendered.values():
            task.cancel()
        await asyncio.gather(*self._rendered.values(), return_exceptions=True)
        if self._folder is not None:
            self._folder.cleanup()


def _write(spec: MediaSpec, path: Path) -> None:
    card = Card(spec)
    if spec.kind == "image":
        # Each format takes of the two what it knows.
        card.picture().save(path, spec.format.upper(), quality=spec.quality, compress_level=3)
        return
    frames = max(1, round(spec.duration_s * spec.fps))
    # faststart puts the index before the pictures, so that a player can begin before it has the whole file.
    # PyAV's stubs leave these two partly untyped.
    container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    frame_class: Any = av.VideoFrame
    with container:
        stream = container.add_stream("libx264", rate=spec.fps, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.codec_context.thread_count = 1
        # A result that says nothing stands still too, so that making it costs next to nothing.
        still = None if spec.heading else frame_class.from_image(card.picture()).reformat(format="yuv420p")
        for index in range(frames):
            frame = still or frame_class.from_image(card.frame(index, frames))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


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


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which the sandbox needs to draw text.")
    return font


@lru_cache(maxsize=1)
def _chinese_font() -> str | None:
    for name in _CHINESE_FONTS:
        try:
            _font(name, 16)
        except OSError:
            continue
        return name
    return None


@lru_cache(maxsize=4096)
def _has_glyph(name: str | None, character: str) -> bool:
    # A font draws what it lacks as it draws a code point that is no character.
    mask: Any = _font(name, 24).getmask  # its stub hides that masks have bytes
    return character.isspace() or bytes(mask(character)) != bytes(mask("\uffff"))


def _family(text: str) -> str | None:
    return None if all(_has_glyph(None, character) for character in set(text)) else _chinese_font()


def font_for(text: str, size: float) -> ImageFont.FreeTypeFont:
    """A font that draws a text as far as this machine can."""
    return _font(_family(text), max(8, round(size)))


def readable(text: str) -> str:
    """A text as it can be drawn here: runs of characters that no font has become an ellipsis."""
    flat = " ".join(text.split())
    name = _family(flat)
    kept = re.sub("\ufffd+", "\u2026", "".join(c if _has_glyph(name, c) else "\ufffd" for c in flat))
    if flat and not re.search(r"[^\s\u2026]", kept):
        return f"({len(flat)} characters that no font here can draw)"
    return kept


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float, max_lines: int) -> list[str]:
    """Break a text into lines between words, a word that is wider than a line anywhere; what has no room becomes an ellipsis."""
    lines = [""]
    for piece in _PIECES.findall(text):
        for part in piece if font.getlength(piece) > width else [piece]:
            if lines[-1] and font.getlength((lines[-1] + part).rstrip()) > width:
                lines.append("")
            lines[-1] += part if lines[-1] else part.lstrip()
    lines = [line.rstrip() for line in lines if line.strip()]
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and font.getlength(last + "\u2026") > width:
            last = last[:-1].rstrip()
        lines[max_lines - 1 :] = [last + "\u2026"]
    return lines
