"""The media formats that are known here, by a file's first bytes."""

from __future__ import annotations

import re
from typing import Literal, cast

from prefect_happyhorse.domain.values import AssetKind

__all__ = ["HEAD_BYTES", "NOUNS", "MediaFormat", "extension_of", "format_of", "is_text", "kind_of", "media_type_of", "sniff"]

MediaFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "svg", "mp4", "mov", "webm", "mp3", "wav", "bin"]
"""A media format; "bin" stands for one that is not known, and `sniff` never gives it."""

NOUNS: dict[AssetKind, str] = {"image": "picture", "video": "video", "audio": "sound"}
"""What messages call each kind of medium."""

HEAD_BYTES = 512
"""How much of a file's start `sniff` looks at."""

_FACTS: dict[MediaFormat, tuple[AssetKind, str, str]] = {
    "jpeg": ("image", "image/jpeg", "jpg"),
    "png": ("image", "image/png", "png"),
    "webp": ("image", "image/webp", "webp"),
    "bmp": ("image", "image/bmp", "bmp"),
    "gif": ("image", "image/gif", "gif"),
    "tiff": ("image", "image/tiff", "tiff"),
    "avif": ("image", "image/avif", "avif"),
    "svg": ("image", "image/svg+xml", "svg"),
    "mp4": ("video", "video/mp4", "mp4"),
    "mov": ("video", "video/quicktime", "mov"),
    "webm": ("video", "video/webm", "webm"),
    "mp3": ("audio", "audio/mpeg", "mp3"),
    "wav": ("audio", "audio/wav", "wav"),
}
_UNKNOWN = ("application/octet-stream", "bin")
_ALIASES: dict[str, MediaFormat] = {
    "image/jpg": "jpeg",
    "image/x-ms-bmp": "bmp",
    "audio/mp3": "mp3",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
}
# Brands of ISO base media files that are pictures or sound: https://mp4ra.org/registered-types/brands
_FOREIGN_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"M4A ", b"M4B ", b"crx "})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# https://www.w3.org/TR/SVG2/struct.html#NewDocument : the root element, after what may stand before it in any XML.
_COMMENTS = rb"(?:<!--.*?-->\s*)*"
_SVG = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml\b.*?\?>\s*)?" + _COMMENTS + rb"(?:<!DOCTYPE\s+svg\b|<(?:svg:)?svg[\s>/])", re.DOTALL)
_BOXES = frozenset({b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})


def sniff(head: bytes) -> MediaFormat | None:
    r"""The format of a file by its first bytes.

    Example:
        >>> sniff(b"\x89PNG\r\n\x1a\n" + bytes(24)), sniff(b"<!DOCTYPE html>")
        ('png', None)
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if head[:4] == b"RIFF":
        return cast("dict[bytes, MediaFormat]", {b"WEBP": "webp", b"WAVE": "wav"}).get(head[8:12])
    if head[:2] == b"BM" and _is_bitmap(head):
        return "bmp"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head[:64] else None
    if _SVG.match(head[:HEAD_BYTES]):
        return "svg"
    return _sniff_boxes(head) or _sniff_mp3(head)


def _is_bitmap(head: bytes) -> bool:
    # "BM" alone also starts ordinary text; the size of the next header tells.
    return len(head) >= 18 and int.from_bytes(head[14:18], "little") in {12, 16, 40, 52, 56, 64, 108, 124}


def _sniff_boxes(head: bytes) -> MediaFormat | None:
    """MP4 or QuickTime (https://developer.apple.com/documentation/quicktime-file-format), or AVIF, which has boxes too."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        # A picture's own brand may stand among those that it is compatible with: https://aomediacodec.github.io/av1-avif/#brands
        also = {head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), len(head)), 4)}
        if brand in _AVIF_BRANDS or (brand in {b"mif1", b"msf1"} and also & _AVIF_BRANDS):
            return "avif"
        if brand == b"qt  ":
            return "mov"
        return None if brand in _FOREIGN_BRANDS else "mp4"
    return "mov" if head[4:8] in _BOXES else None


def _sniff_mp3(head: bytes) -> MediaFormat | None:
    """MPEG audio, layer III: an ID3 tag, or the sync word with sensible bit rate and sampling rate behind it."""
    if head.startswith(b"ID3"):
        return "mp3"
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    is_sensible = head[1] & 0x18 != 0x08 and head[2] >> 4 not in {0, 15} and head[2] & 0x0C != 0x0C
    return "mp3" if is_sensible else None


def is_text(head: bytes, media_type: str | None = None) -> bool:
    """Whether a file without a known format begins like a text, as error pages do, or is called one.

    Example:
        >>> is_text(b'{"error": "expired"}'), is_text(bytes(64)), is_text(bytes(64), "text/html; charset=utf-16")
        (True, False, True)
    """
    plain = (media_type or "").partition(";")[0].strip().lower()
    if plain.startswith("text/") or plain.endswith(("/json", "/xml", "+json", "xhtml+xml")):
        return True
    # The last character may be cut.
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) > len(head) - 4 and not any(ord(character) < 32 and character not in "\t\n\r\f" for character in text)


def kind_of(form: MediaFormat) -> AssetKind:
    """What a known format holds: image, video or audio.

    Example:
        >>> kind_of("webm")
        'video'
    """
    return _FACTS[form][0]


def media_type_of(form: MediaFormat) -> str:
    """The media type of a format.

    Example:
        >>> media_type_of("mov")
        'video/quicktime'
    """
    return _UNKNOWN[0] if form == "bin" else _FACTS[form][1]


def extension_of(form: MediaFormat) -> str:
    """The extension of a format's files, without the dot.

    Example:
        >>> extension_of("jpeg")
        'jpg'
    """
    return _UNKNOWN[1] if form == "bin" else _FACTS[form][2]


def format_of(media_type: str) -> MediaFormat | None:
    """The format that a media type names, or None when it is none of those that are known here.

    Example:
        >>> format_of("image/jpeg; charset=binary"), format_of("text/html")
        ('jpeg', None)
    """
    plain = media_type.partition(";")[0].strip().lower()
    for form, facts in _FACTS.items():
        if plain == facts[1]:
            return form
    return _ALIASES.get(plain)
