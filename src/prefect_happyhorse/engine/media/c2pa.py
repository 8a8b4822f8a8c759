"""Whether a file holds C2PA data: a look at the headers of its parts alone, never at what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from itertools import islice
from pathlib import Path

from prefect_happyhorse.engine.media.formats import MediaFormat

__all__ = ["has_c2pa"]

# https://spec.c2pa.org/specifications/specifications/2.1/specs/C2PA_Specification.html#_embedding_manifests_into_various_file_formats
_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_MOST_PARTS = 10_000
_APP11, _START_OF_SCAN = 0xEB, 0xDA


def has_c2pa(path: Path, form: MediaFormat) -> bool | None:
    """Whether a JPEG, PNG, WebP, MP4, QuickTime, AVIF or WAV file holds C2PA data; None of another, or one of too many parts. It blocks."""
    parts = _PARTS.get(form)
    if parts is None:
        return None
    # Without a buffer, so that no more is read than what is looked at.
    with path.open("rb", buffering=0) as file:
        seen = 0
        for is_c2pa in islice(parts(file), _MOST_PARTS):
            if is_c2pa:
                return True
            seen += 1
    return False if seen < _MOST_PARTS else None


def _segments(file: FileIO) -> Iterator[bool]:
    """Of a JPEG, up to its picture."""
    position = 2
    while len(header := _at(file, position, 64)) >= 4 and header[0] == 0xFF and header[1] != _START_OF_SCAN:
        # A JUMBF superbox, whose description box says what it is.
        yield header[1] == _APP11 and header[4:6] == b"JP" and b"jumb" in header and b"c2pa" in header
        position += 2 + int.from_bytes(header[2:4], "big")


def _chunks(file: FileIO) -> Iterator[bool]:
    """Of a PNG."""
    position = 8
    while len(header := _at(file, position, 8)) == 8:
        yield header[4:] == b"caBX"
        position += 12 + int.from_bytes(header[:4], "big")


def _boxes(file: FileIO) -> Iterator[bool]:
    """Of an ISO base media file, those outside of all others."""
    position = 0
    while len(header := _at(file, position, 32)) >= 8:
        length, own = int.from_bytes(header[:4], "big"), 8
        if length == 1:
            length, own = int.from_bytes(header[8:16], "big"), 16
        yield header[4:8] == b"uuid" and header[own : own + 16] == _UUID
        if length < own:
            # The last box goes to the end, or the file is damaged.
            return
        position += length


def _riff_chunks(file: FileIO) -> Iterator[bool]:
    position = 12
    while len(header := _at(file, position, 8)) == 8:
        yield header[:4] == b"C2PA"
        length = int.from_bytes(header[4:], "little")
        position += 8 + length + length % 2


def _at(file: FileIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


_PARTS: Mapping[MediaFormat, Callable[[FileIO], Iterator[bool]]] = {
    "jpeg": _segments,
    "png": _chunks,
    "webp": _riff_chunks,
    "wav": _riff_chunks,
    "mp4": _boxes,
    "mov": _boxes,
    "avif": _boxes,
}
