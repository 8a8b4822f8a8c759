"""Files by ranges: what HTTP says of them, what is shown and what only saved, and little memory for long ones."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.gallery.entries import digest_of, kept, place

from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gallery.reader import JournalReader

CONTENT = bytes(range(256)) * 10
ADDRESS = f"/media/{digest_of(1)}/0"
GB = 10**9


@pytest.fixture
async def video(folder: Path, reader: JournalReader) -> str:
    """A kept video of 2,560 bytes; the ETag of its file."""
    entry = kept(folder, 1, content=CONTENT, media_type="video/mp4")
    place(folder, entry)
    await reader.refresh()
    assert entry.asset is not None
    return f'"{entry.asset.sha256}"'


async def test_the_whole_file(client: httpx.AsyncClient, video: str) -> None:
    """With its type, its length, a name, and that ranges are taken."""
    answer = await client.get(ADDRESS)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert {name: answer.headers[name] for name in ("content-type", "content-length", "accept-ranges", "etag", "content-disposition")} == {
        "content-type": "video/mp4",
        "content-length": "2560",
        "accept-ranges": "bytes",
        "etag": video,
        "content-disposition": "inline; filename*=UTF-8''1.mp4",
    }
    head = await client.head(ADDRESS)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2560")
    assert (await client.get(ADDRESS, headers={"If-None-Match": video})).status_code == 304


@pytest.mark.usefixtures("video")
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=2550-", 2550, 2559),
        ("bytes=0-", 0, 2559),
        ("bytes=-10", 2550, 2559),
        ("bytes=-99999", 0, 2559),
        ("bytes=2559-99999999999", 2559, 2559),
    ],
)
async def test_a_range(client: httpx.AsyncClient, asked: str, start: int, end: int) -> None:
    """From the first byte that is asked for to the last, as far as there are any."""
    answer = await client.get(ADDRESS, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start : end + 1])
    assert (answer.headers["content-range"], answer.headers["content-length"]) == (f"bytes {start}-{end}/2560", str(end + 1 - start))


@pytest.mark.usefixtures("video")
@pytest.mark.parametrize("asked", ["bytes=2560-", "bytes=99999-100000", "bytes=-0"])
async def test_a_range_behind_the_end(client: httpx.AsyncClient, asked: str) -> None:
    """It says how long the file is."""
    answer = await client.get(ADDRESS, headers={"Range": asked})
    assert (answer.status_code, answer.content, answer.headers["content-range"]) == (416, b"", "bytes */2560")


@pytest.mark.usefixtures("video")
@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,5-6", "bytes=-", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 30 + "-", ""])
async def test_what_is_no_single_range_is_ignored(client: httpx.AsyncClient, asked: str) -> None:
    """The whole file is answered, as HTTP has it."""
    answer = await client.get(ADDRESS, headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, 2560)


async def test_a_range_of_another_file_is_not_mixed_in(client: httpx.AsyncClient, video: str) -> None:
    """Where the file is no longer the one that a browser has a part of, it gets the whole."""
    same = await client.get(ADDRESS, headers={"Range": "bytes=0-9", "If-Range": video})
    other = await client.get(ADDRESS, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        ("image/png", "image/png"),
        ("image/jpg", "image/jpeg"),
        ("audio/mpeg", "audio/mpeg"),
        ("video/webm", "video/webm"),
        ("image/svg+xml", None),
        ("image/tiff", None),
        ("video/html", None),
    ],
)
async def test_what_may_be_a_program_is_only_saved(
    client: httpx.AsyncClient, folder: Path, reader: JournalReader, media_type: str, shown: str | None
) -> None:
    """Pictures, videos and sounds that browsers know are shown; an SVG, and what is not known, are bytes."""
    place(folder, kept(folder, 1, content=b"<svg onload=alert(1)>", media_type=media_type))
    await reader.refresh()
    answer = await client.get(ADDRESS)
    assert answer.headers["content-type"] == (shown or "application/octet-stream")
    assert answer.headers["content-disposition"].partition(";")[0] == ("inline" if shown else "attachment")
    job = (await client.get(f"/api/jobs/{digest_of(1)}")).json()["job"]
    assert job["files"][0]["shown"] is (shown is not None)


async def test_a_name_cannot_end_its_header(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """Quotes, spaces and letters of any script in a file's name are written out."""
    name = 'a"; x=é'
    place(folder, kept(folder, name, content=CONTENT))
    await reader.refresh()
    answer = await client.get(f"/media/{digest_of(name)}/0")
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''a%22%3B%20x%3D%C3%A9.png"


async def test_20_gb_take_little_memory(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """A video of 20 GB is asked for at its end, and what is asked for is read a piece at a time."""
    entry = kept(folder, 1, media_type="video/mp4")
    assert entry.asset is not None
    place(folder, entry.model_copy(update={"asset": entry.asset.model_copy(update={"bytes": 20 * GB})}))
    with (folder / "2026-11-20" / "1.mp4").open("wb") as file:
        file.truncate(20 * GB)
        file.seek(20 * GB - 4)
        file.write(b"last")
    await reader.refresh()
    end = await client.get(ADDRESS, headers={"Range": "bytes=-4"})
    assert (end.content, end.headers["content-range"]) == (b"last", f"bytes {20 * GB - 4}-{20 * GB - 1}/{20 * GB}")
    assert (await client.head(ADDRESS)).headers["content-length"] == str(20 * GB)
    largest = 0
    real = Store.read_range

    async def noted(self: Store, path: str, start: int, length: int) -> bytes:
        nonlocal largest
        largest = max(largest, length)
        return await real(self, path, start, length)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, "read_range", noted)
        answer = await client.get(ADDRESS, headers={"Range": f"bytes={GB}-{GB + 20_000_000 - 1}"})
    assert (len(answer.content), largest) == (20_000_000, 1024 * 1024)
