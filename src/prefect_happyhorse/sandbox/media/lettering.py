"""Setting text: fonts, wrapping, and what happens to characters that no font here can draw."""

from __future__ import annotations

import re
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Font", "font_for", "readable", "wrap"]

Font = ImageFont.FreeTypeFont

# Fonts that draw Chinese, by the file names under which systems keep them; Pillow looks in each system's own font folders.
_CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "STHeiti Light.ttc",
    "msyh.ttc",
    "simhei.ttf",
    "simsun.ttc",
    "Arial Unicode.ttf",
)

_WIDE = "\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
_PIECES = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+|\s+")


@lru_cache(maxsize=1)
def _chinese_font() -> str | None:
    for name in _CHINESE_FONTS:
        try:
            ImageFont.truetype(name, 16)
        except OSError:
            continue
        return name
    return None


@lru_cache(maxsize=64)
def _own_font(size: int) -> Font:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which the sandbox needs to draw text.")
    return font


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font:
    return _own_font(size) if name is None else ImageFont.truetype(name, size)


@lru_cache(maxsize=4096)
def _draws(name: str | None, character: str) -> bool:
    return character.isspace() or _drawn(name, character) != _drawn(name, "\uffff")


def _drawn(name: str | None, character: str) -> bytes:
    canvas = Image.new("L", (48, 48))
    ImageDraw.Draw(canvas).text((8, 8), character, font=_font(name, 24), fill=255)
    return canvas.tobytes()


def _family(text: str) -> str | None:
    return None if all(_draws(None, character) for character in set(text)) else _chinese_font()


def font_for(text: str, size: int) -> Font:
    """A font that draws a text as far as this machine can."""
    return _font(_family(text), max(8, size))


def readable(text: str) -> str:
    """A text as it can be drawn here: runs of characters that no font has become an ellipsis."""
    flat = " ".join(text.split())
    name = _family(flat)
    kept = re.sub("\ufffd+", "\u2026", "".join(c if _draws(name, c) else "\ufffd" for c in flat))
    if flat and not re.search(r"[^\s\u2026]", kept):
        return f"({len(flat)} characters that no font here can draw)"
    return kept


def wrap(text: str, font: Font, width: float, lines: int) -> list[str]:
    """Break a text into lines."""
    done: list[str] = []
    line = ""
    for piece in _pieces(text, font, width):
        if font.getlength(line + piece.rstrip()) <= width or not line:
            line += piece if line or not piece.isspace() else ""
            continue
        if len(done) + 1 == lines:
            return [*done, _with_ellipsis(line, font, width)]
        done.append(line.rstrip())
        line = piece.lstrip()
    return [*done, line.rstrip()] if line.strip() else done


def _pieces(text: str, font: Font, width: float) -> list[str]:
    pieces: list[str] = []
    for piece in _PIECES.findall(text):
        # A word that is wider than the line, an address for example, breaks anywhere.
        pieces.extend(piece if font.getlength(piece) > width else [piece])
    return pieces


def _with_ellipsis(line: str, font: Font, width: float) -> str:
    kept = line.rstrip()
    while kept and font.getlength(kept + "\u2026") > width:
        kept = kept[:-1].rstrip()
    return kept + "\u2026"
