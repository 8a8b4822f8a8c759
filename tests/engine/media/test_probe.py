"""What media files are, told from real ones, damaged ones, and files that only claim to be media."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.engine.samples import AVIF, DRAWING, READS_AVIF, movie, picture, sound, turned, with_padding

from prefect_happyhorse.engine.media import probe as probes
from prefect_happyhorse.engine.media.formats import HEAD_BYTES, MediaFormat, extension_of, format_of, kind_of, media_type_of, sniff
from prefect_happyhorse.engine.media.probe import MediaInfo, MediaNotReadable, can_measure, probe

PICTURES = {form: picture(form) for form in ("jpeg", "png", "webp", "bmp", "gif", "tiff")}
MOVIES = {form: movie(form) for form in ("mp4", "mov", "webm")}
SOUNDS = {form: sound(form) for form in ("mp3", "wav")}
OTHER_PICTURES = {"avif": AVIF, "svg": DRAWING}
ALL = PICTURES | OTHER_PICTURES | MOVIES | SOUNDS


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "medium"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", ALL)
def test_sniff(form: MediaFormat) -> None:
    """Every format that is known here is told from the first bytes of a real file."""
    assert sniff(ALL[form][:HEAD_BYTES]) == form


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x00",
        b"<!doctype html><html>",
        b'{"error": "expired"}',
        b"hello, this is a text",
        b"BM is how this text begins, and it goes on",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"\x1a\x45\xdf\xa3 matroska",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"<!doctype html><html><svg></svg>",
        b"<html><!-- <svg> --><svg></svg>",
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"<svgs></svgs>",
        b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic",
        b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00",
        b"\x00\x00\x00\x1cftypM4A \x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\xff\xfb",
        b"\xff\xf1\x50\x80",
    ],
)
def test_sniff_something_else(head: bytes) -> None:
    """Pages, texts and formats that no gateway speaks of are none of the known formats."""
    assert sniff(head) is None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xfb\x90\x00", "mp3"),
        (b"ID3\x04\x00", "mp3"),
        (b"\x00\x00\x00\x14ftypqt  ", "mov"),
        (b"\x00\x00\x08\x00moov", "mov"),
        (b"\x00\x00\x00\x18ftypmp42", "mp4"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", "avif"),
        (b"\x00\x00\x00\x1cftypavis\x00\x00\x00\x00", "avif"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf", "avif"),
        (b"<svg/>", "svg"),
        (b"\xef\xbb\xbf\n<svg xmlns='http://www.w3.org/2000/svg'>", "svg"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x">', "svg"),
        (b"<!-- Made by hand --><!-- twice --><svg:svg>", "svg"),
    ],
)
def test_sniff_variants(head: bytes, expected: str) -> None:
    """Other beginnings of the same formats are known too."""
    assert sniff(head) == expected


@given(head=st.binary(max_size=HEAD_BYTES))
def test_sniff_anything(head: bytes) -> None:
    """No beginning of a file is too strange to be looked at."""
    found = sniff(head)
    assert found is None or found in ALL


@pytest.mark.parametrize("form", ALL)
def test_names(form: MediaFormat) -> None:
    """Format, media type, extension and kind belong together."""
    assert format_of(media_type_of(form).upper() + "; codecs=x") == form
    assert kind_of(form) == ("image" if form in PICTURES | OTHER_PICTURES else "video" if form in MOVIES else "audio")
    assert extension_of(form) == {"jpeg": "jpg"}.get(form, form)


@pytest.mark.parametrize(("media_type", "expected"), [("image/jpg", "jpeg"), ("audio/x-wav", "wav"), ("text/html", None), ("", None)])
def test_other_media_types(media_type: str, expected: str | None) -> None:
    """Usual misspellings of media types are understood, other types are not guessed at."""
    assert format_of(media_type) == expected


@pytest.mark.parametrize("form", PICTURES)
def test_pictures(form: MediaFormat, tmp_path: Path) -> None:
    """A picture's sides are told."""
    found = probe(put(tmp_path, PICTURES[form]))
    assert found == MediaInfo(form, "image", len(PICTURES[form]), width=640, height=480)
    assert (found.media_type, found.extension) == (media_type_of(form), extension_of(form))


@pytest.mark.parametrize(("form", "codec"), [("mp4", "h264"), ("mov", "h264"), ("webm", "vp8")])
def test_videos(form: MediaFormat, codec: str, tmp_path: Path) -> None:
    """A video's sides, playing time, frame rate and codec are told."""
    found = probe(put(tmp_path, MOVIES[form]))
    assert found == MediaInfo(form, "video", len(MOVIES[form]), 320, 240, pytest.approx(1.0, abs=0.1), 12.0, codec, False)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("form", SOUNDS)
def test_sounds(form: MediaFormat, tmp_path: Path) -> None:
    """A sound's playing time is told from its packets."""
    found = probe(put(tmp_path, SOUNDS[form]))
    assert (found.format, found.kind, found.width, found.codec) == (form, "audio", None, {"mp3": "mp3float", "wav": "pcm_s16le"}[form])
    assert found.duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_cut_short(form: MediaFormat, share: float, tmp_path: Path) -> None:
    """A file that is cut short does not pass for a whole one; a stream made to be cut says how much is left of it."""
    content = ALL[form][: int(len(ALL[form]) * share)]
    if form in SOUNDS or form == "webm":
        # These have no length or end of their own: what is there is a shorter whole.
        try:
            assert (probe(put(tmp_path, content)).duration_s or 0) <= 3.2
        except MediaNotReadable:
            assert share < 0.9
        return
    with pytest.raises(MediaNotReadable):
        probe(put(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"notes about a horse", "its media format is not known"),
        (b"<svg><path d=", "it is cut short: its end is missing"),
        (b"\x89PNG\r\n\x1a\n" + b"notes about a horse" * 9, "does not open as a picture"),
        (b"\xff\xd8\xff\xe0" + b"notes about a horse" * 9, "does not open as a picture"),
        (b"\x00\x00\x00\x18ftypmp42" + b"notes about a horse" * 9, "cut short or damaged at byte 24"),
        (b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00", "its index is missing"),
        (b"\x1a\x45\xdf\xa3 webm" + b"notes about a horse" * 9, "does not open as a video"),
        (with_padding(b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00\x00\x00\x00\x08moov", 20), "does not open as a video"),
        (b"ID3" + b"\x00" * 99, "does not open as a sound"),
    ],
)
def test_not_what_it_claims(content: bytes, message: str, tmp_path: Path) -> None:
    """A file that only begins like a medium is refused, and the reason says what was tried."""
    with pytest.raises(MediaNotReadable, match=message):
        probe(put(tmp_path, content))


@pytest.mark.parametrize("end", [b"</svg>", b"</svg >\n<!-- made by hand -->\n", b"/>\n"])
def test_drawings(end: bytes, tmp_path: Path) -> None:
    """A drawing has no sides that are sure, and its end is looked for."""
    content = b"<svg " + end if end.startswith(b"/") else b"<svg><path/>" + end
    assert probe(put(tmp_path, content)) == MediaInfo("svg", "image", len(content))


@pytest.mark.parametrize("reads", [True, False])
def test_avif(reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept without a reader too, and then its boxes say whether it is whole."""
    if not reads:
        Image.init()
        monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
        monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "AVIF"])
    width, height = (64, 48) if reads and READS_AVIF else (None, None)
    assert probe(put(tmp_path, AVIF)) == MediaInfo("avif", "image", len(AVIF), width=width, height=height)
    with pytest.raises(MediaNotReadable, match="cut short"):
        probe(put(tmp_path, AVIF[:-1]))


def test_sound_in_place_of_pictures(tmp_path: Path) -> None:
    """A video file without pictures is no video."""
    audio_only = io.BytesIO()
    import av

    with av.open(io.BytesIO(SOUNDS["mp3"])) as source, av.open(audio_only, "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(MediaNotReadable, match="it has no pictures"):
        probe(put(tmp_path, audio_only.getvalue()))


def test_long_boxes(tmp_path: Path) -> None:
    """Boxes with a 64-bit length, and a last one that goes to the end of the file, are read."""
    wide = (1).to_bytes(4, "big") + b"free" + (64).to_bytes(8, "big") + bytes(48)
    open_ended = (0).to_bytes(4, "big") + b"free" + bytes(99)
    assert probe(put(tmp_path, MOVIES["mp4"] + wide + open_ended)).width == 320
    with pytest.raises(MediaNotReadable, match="cut short"):
        probe(put(tmp_path, MOVIES["mp4"] + wide[:-1]))


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_turned_pictures(form: str, tmp_path: Path) -> None:
    """A picture that is to be shown on its side has the sides that it is shown with."""
    exif = Image.Exif()
    exif[274] = 6
    found = probe(put(tmp_path, picture(form, exif=exif)))
    assert (found.width, found.height) == (480, 640)


def test_turned_videos(tmp_path: Path) -> None:
    """The same for a video."""
    found = probe(put(tmp_path, turned(MOVIES["mp4"])))
    assert (found.width, found.height) == (240, 320)


def test_enormous_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture with more pixels than are safe to open is kept, with sides that are not known."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert probe(put(tmp_path, PICTURES["png"])) == MediaInfo("png", "image", len(PICTURES["png"]))


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow and PyAV the format and length are told, and nothing is guessed; a video that is cut short is still found out."""
    monkeypatch.setattr(probes, "can_measure", lambda _: False)  # pyright: ignore[reportUnknownLambdaType]
    for form, content in ALL.items():
        assert probe(put(tmp_path, content)) == MediaInfo(form, kind_of(form), len(content))  # type: ignore[arg-type]
    with pytest.raises(MediaNotReadable, match="cut short"):
        probe(put(tmp_path, MOVIES["mp4"][:-1]))


def test_imports_are_lazy() -> None:
    """Nothing of the engine's media half imports Pillow, PyAV or an object store's client before it is needed."""
    code = (
        "import sys, prefect_happyhorse.engine.download.download, prefect_happyhorse.engine.inputs.upload\n"
        "print(sorted({'PIL', 'av', 's3fs', 'botocore', 'fsspec'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_can_measure() -> None:
    """With the extra installed, all can be measured."""
    assert [can_measure(kind) for kind in ("image", "video", "audio")] == [True] * 3  # type: ignore[arg-type]


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is not taken for a damaged one."""
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "nothing")
