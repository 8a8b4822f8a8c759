"""C2PA data in files: found by the headers of their parts, and by nothing that only looks like them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from tests.engine.samples import AVIF, DRAWING, movie, picture, sound

from prefect_happyhorse.engine.media import c2pa
from prefect_happyhorse.engine.media.c2pa import has_c2pa
from prefect_happyhorse.engine.media.formats import MediaFormat

_DESCRIPTION = b"jumd" + bytes.fromhex("6332706100110010800000aa00389b71") + b"\x03c2pa\0"
JUMBF = (16 + len(_DESCRIPTION) - 4).to_bytes(4, "big") + b"jumb" + (4 + len(_DESCRIPTION)).to_bytes(4, "big") + _DESCRIPTION
"""A superbox as the specification draws it, with nothing but its description."""


def box(name: bytes, content: bytes, *, wide: bool = False) -> bytes:
    if wide:
        return (1).to_bytes(4, "big") + name + (16 + len(content)).to_bytes(8, "big") + content
    return (8 + len(content)).to_bytes(4, "big") + name + content


UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def with_c2pa(form: MediaFormat, content: bytes) -> bytes:
    """A file with C2PA data where the specification puts them."""
    if form == "jpeg":
        payload = b"JP" + (1).to_bytes(2, "big") + (1).to_bytes(4, "big") + JUMBF
        return content[:2] + b"\xff\xeb" + (2 + len(payload)).to_bytes(2, "big") + payload + content[2:]
    if form == "png":
        chunk = b"caBX" + JUMBF
        return content[:33] + len(JUMBF).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + content[33:]
    if form in {"webp", "wav"}:
        added = b"C2PA" + len(JUMBF).to_bytes(4, "little") + JUMBF + bytes(len(JUMBF) % 2)
        return b"RIFF" + (len(content) - 8 + len(added)).to_bytes(4, "little") + content[8:] + added
    return content + box(b"uuid", UUID + bytes(4) + b"manifest\0" + bytes(8) + JUMBF)


PLAIN: dict[MediaFormat, bytes] = {
    "jpeg": picture("jpeg"),
    "png": picture("png"),
    "webp": picture("webp"),
    "wav": sound("wav", seconds=1),
    "mp4": movie("mp4"),
    "mov": movie("mov"),
    "avif": AVIF,
}


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "medium"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", PLAIN)
def test_found(form: MediaFormat, tmp_path: Path) -> None:
    """A file with C2PA data has them, and the same without has none; both are whole."""
    from prefect_happyhorse.engine.media.probe import probe

    assert has_c2pa(put(tmp_path, PLAIN[form]), form) is False
    path = put(tmp_path, with_c2pa(form, PLAIN[form]))
    assert has_c2pa(path, form) is True
    assert probe(path).format == form


def test_other_boxes(tmp_path: Path) -> None:
    """A wide box is read, one of another owner is none, and one that goes to the end of the file is the last."""
    video = PLAIN["mp4"]
    assert has_c2pa(put(tmp_path, video + box(b"uuid", UUID + b"x", wide=True)), "mp4") is True
    assert has_c2pa(put(tmp_path, video + box(b"uuid", bytes(16) + UUID)), "mp4") is False
    assert has_c2pa(put(tmp_path, video + bytes(4) + b"free" + box(b"uuid", UUID)), "mp4") is False


def test_other_segments(tmp_path: Path) -> None:
    """Another JUMBF box, and the words in a comment or in the picture itself, are no C2PA data."""
    jpeg = PLAIN["jpeg"]
    foreign = b"JP\0\1\0\0\0\1" + JUMBF.replace(b"c2pa", b"abcd")
    for marker, payload in ((b"\xff\xeb", foreign), (b"\xff\xfe", b"JP jumb c2pa")):
        segment = marker + (2 + len(payload)).to_bytes(2, "big") + payload
        assert has_c2pa(put(tmp_path, jpeg[:2] + segment + jpeg[2:]), "jpeg") is False
    assert has_c2pa(put(tmp_path, jpeg + b"\xff\xeb\0\x40JP jumb c2pa"), "jpeg") is False


@pytest.mark.parametrize(("form", "content"), [("svg", DRAWING), ("mp3", sound("mp3", seconds=1)), ("bin", b"?")])
def test_not_looked_for(form: MediaFormat, content: bytes, tmp_path: Path) -> None:
    """Of formats that are not looked into nothing is claimed."""
    assert has_c2pa(put(tmp_path, content), form) is None


@pytest.mark.parametrize("form", PLAIN)
@pytest.mark.parametrize("content", [b"", b"\xff", os.urandom(200), b"\xff\xd8\xff\xeb\0\0", bytes(100)])
def test_damaged(form: MediaFormat, content: bytes, tmp_path: Path) -> None:
    """Whatever the file is, the look ends."""
    assert has_c2pa(put(tmp_path, content), form) in {False, None}


def test_too_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ends after so many parts, and then it is not known."""
    monkeypatch.setattr(c2pa, "_MOST_PARTS", 20)
    assert has_c2pa(put(tmp_path, PLAIN["mp4"] + box(b"free", b"") * 30 + box(b"uuid", UUID)), "mp4") is None
