"""Setting text: fonts, line breaks, and what happens to characters that no font of this machine can draw."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from PIL import ImageFont

__all__ = ["Font", "font_for", "readable", "wrap"]

Font = ImageFont.FreeTypeFont

# Fonts that draw Chinese, by the file names under which systems keep them; Pillow looks in each system's own font folders.
_CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "NotoSansCJKsc-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "STHeiti Light.ttc", "msyh.ttc", "simhei.ttf", "simsun.ttc",
    "Arial Unicode.ttf",
)  # fmt: skip

_WIDE = "\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
_PIECES = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+|\s+")


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font:
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


def font_for(text: str, size: float) -> Font:
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


def wrap(text: str, font: Font, width: float, max_lines: int) -> list[str]:
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
