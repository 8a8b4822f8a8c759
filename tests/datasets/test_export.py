"""What was made as a data set: exact, whole or not at all, and read back as the manifest that it was made of."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import anyio
import fsspec
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.datasets.samples import HORSE, NOON, any_request, made, read, requests

from prefect_happyhorse.datasets import ExportFormat, Row, export, journal_entries
from prefect_happyhorse.datasets.samples import COLUMNS
from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.requests import GenerationRequest, TextToImage
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, Unreadable
from prefect_happyhorse.engine.storage.store import Store

every_table = pytest.mark.parametrize("form", ["parquet", "jsonl"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "outputs"))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def kept(store: Store, number: int, content: bytes, **more: Any) -> JournalEntry:
    """An entry whose file lies in the store."""
    await store.write(f"made/{number}.png", content)
    return made(number, content=content, uri=store.uri(f"made/{number}.png"), **more)


@every_table
async def test_a_row_tells_all_of_a_file(form: ExportFormat, store: Store, tmp_path: Path) -> None:
    """Who made it of what, where it is and what it cost; in Parquet with the type of each column."""
    entry = made(1, request=TextToImage(model="gpt-image-2", prompt="A horse", seed=7), take=2, credentials="studio")
    target = tmp_path / "new" / f"shots.{form}"
    done = await export([entry], store, str(target), ids={entry.digest: "horse-1"})
    assert (done.format, done.files, done.rows, done.without_file) == (form, (f"file://{target}",), 1, 0)
    (row,) = rows_of(target)
    assert list(row) == list(COLUMNS)
    finished = NOON + timedelta(seconds=7.25)
    assert row == {
        "id": "horse-1",
        "prompt": "A horse",
        "seed": 7,
        "model": "gpt-image-2",
        "gateway": "happyhorse",
        "capability": "text_to_image",
        "digest": entry.digest,
        "task_id": "t-1",
        "output": 1,
        "uri": "memory://x/a.png",
        "media_type": "image/png",
        "sha256": hashlib.sha256(b"bytes of 1").hexdigest(),
        "bytes": 10,
        "width": 4,
        "height": 3,
        "duration_s": None,
        "cost": "0.10",
        "currency": "CNY",
        "submitted_at": NOON if form == "parquet" else NOON.isoformat(),
        "finished_at": finished if form == "parquet" else finished.isoformat(),
        "credentials": "studio",
        "take": 2,
        "request": '{"capability":"text_to_image","model":"gpt-image-2","prompt":"A horse","seed":7}',
    }


@every_table
async def test_it_is_read_back_as_a_manifest(form: ExportFormat, store: Store, tmp_path: Path) -> None:
    """With the ids, takes and credentials of its rows, so that making it again finds the same jobs."""
    entries = [made(number, take=number, credentials=None if number == 2 else "studio") for number in (1, 2)]
    target = str(tmp_path / f"shots.{form}")
    await export(entries, store, target, ids={entries[0].digest: "first"})
    assert read(target, id_column="id") == [
        Row(row=1, id="first", request=HORSE, take=1, credentials="studio"),
        Row(row=2, id=entries[1].digest, request=HORSE, take=2),
    ]


# Every field of every request makes a strategy whose repr is long.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_request, max_size=4), st.sampled_from(["parquet", "jsonl"]))
@example([TextToImage(model="m", prompt="A", options={"steps": float("inf"), "scale": 1.0})], "parquet")
def test_any_request_comes_back_as_it_was(tmp_path: Path, made_of: list[GenerationRequest], form: ExportFormat) -> None:
    """Written and read back it is equal, whatever was in it."""
    target = tmp_path / f"shots.{form}"
    entries = [made(number, request=request) for number, request in enumerate(made_of)]
    asyncio.run(export(entries, Store("memory://any"), str(target), overwrite=True))
    assert requests(target) == made_of


@every_table
async def test_each_output_has_a_row_and_the_job_its_cost_once(form: ExportFormat, store: Store, tmp_path: Path) -> None:
    """Their ids differ, and the costs can be summed; what nobody knows is empty."""
    unknown = made(2, outputs=1).model_copy(update={"estimate": None})
    target = tmp_path / f"shots.{form}"
    done = await export([made(1, outputs=3), unknown], store, str(target), ids={made(1).digest: "a"})
    assert done.rows == 4
    found = [(row["id"], row["output"], row["cost"], row["currency"]) for row in rows_of(target)]
    assert found == [("a", 1, "0.10", "CNY"), ("a-2", 2, None, None), ("a-3", 3, None, None), (unknown.digest, 1, None, None)]


@every_table
async def test_jobs_without_a_file_are_counted(form: ExportFormat, store: Store, tmp_path: Path) -> None:
    """And an entry that cannot be read is told; a data set may be empty, and its columns are known all the same."""
    open_job = made(1).model_copy(update={"state": "submitted", "asset": None, "result": None})
    broken = Unreadable("journal/aa/x.json", SubmissionUncertain("The entry cannot be read."))
    target = tmp_path / f"shots.{form}"
    done = await export([open_job, broken], store, str(target))
    assert (done.rows, done.without_file, done.left_out) == (0, 1, 1)
    assert "The entry cannot be read." in done.problems[0]
    assert rows_of(target) == []
    assert read(target) == []


@pytest.mark.parametrize("form", get_args(ExportFormat))
async def test_an_id_is_of_one_job_alone(form: ExportFormat, store: Store, tmp_path: Path) -> None:
    """Two of the same are refused, and nothing is left."""
    one, other = await kept(store, 1, b"one"), await kept(store, 2, b"other")
    with pytest.raises(ValueError, match="an id must be of one job alone"):
        await export([one, other], store, str(tmp_path / "shots"), format=form, ids={one.digest: "a", other.digest: "a"})
    assert left(tmp_path) == []


@every_table
async def test_what_is_there_stays_unless_it_is_to_go(form: ExportFormat, store: Store, tmp_path: Path) -> None:
    """Such as the manifest itself, by a slip."""
    target = tmp_path / f"shots.{form}"
    target.write_text("mine")
    with pytest.raises(FileExistsError, match="there is a file already"):
        await export([made(1)], store, str(target))
    assert target.read_text() == "mine"
    await export([made(1)], store, str(target), overwrite=True)
    assert len(rows_of(target)) == 1
    with pytest.raises(IsADirectoryError, match="there is a folder"):
        await export([made(1)], store, str(tmp_path), format=form, overwrite=True)
    assert left(tmp_path) == [target.name]


@pytest.mark.parametrize("form", get_args(ExportFormat))
@pytest.mark.parametrize("error", [OSError("the journal is gone"), asyncio.CancelledError()])
async def test_what_breaks_off_leaves_nothing(form: ExportFormat, error: BaseException, store: Store, tmp_path: Path) -> None:
    """Neither the file nor a part of it, and an earlier one stays."""

    async def breaks() -> AsyncIterator[JournalEntry]:
        yield await kept(store, 1, b"one")
        raise error

    target = tmp_path / ("shots.tar" if form == "webdataset" else f"shots.{form}")
    (tmp_path / "shots-000000.tar").write_text("mine")
    target.write_text("mine")
    with pytest.raises(type(error)):
        await export(breaks(), store, str(target), format=form, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
        target.name: "mine",
        "shots-000000.tar": "mine",
    }


async def test_who_is_cancelled_while_a_thread_writes_leaves_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends its step first, and then all of it is removed."""
    from prefect_happyhorse.datasets.writers import JsonLines

    begun, go_on = threading.Event(), threading.Event()
    write = JsonLines._write

    def slow(self: JsonLines, samples: Any) -> None:
        begun.set()
        go_on.wait(30)
        write(self, samples)

    monkeypatch.setattr(JsonLines, "_write", slow)
    running = asyncio.create_task(export([made(1)], store, str(tmp_path / "shots.jsonl")))
    await anyio.to_thread.run_sync(begun.wait, 30)
    running.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left(tmp_path) == []


async def test_a_file_that_cannot_be_moved_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """Somebody else wrote it meanwhile: theirs stays."""

    async def entries() -> AsyncIterator[JournalEntry]:
        yield made(1)
        (tmp_path / "shots.jsonl").write_text("theirs")

    with pytest.raises(FileExistsError):
        await export(entries(), store, str(tmp_path / "shots.jsonl"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"shots.jsonl": "theirs"}


@every_table
async def test_wherever_the_store_is(form: ExportFormat, any_store: Store) -> None:
    """On a disk, in memory and in S3, with the store's own options; nothing but the data set is left."""
    target = any_store.uri(f"sets/shots [1].{form}")
    done = await export([made(1), made(2)], any_store, target)
    assert (done.rows, await any_store.list("sets")) == (2, [f"shots [1].{form}"])
    with pytest.raises(FileExistsError):
        await export([made(1)], any_store, target)
    assert (await export([made(1)], any_store, target, overwrite=True)).rows == 1
    content = await any_store.read(f"sets/shots [1].{form}")
    found = pyarrow.parquet.read_table(io.BytesIO(content)).num_rows if form == "parquet" else content.count(b"\n")
    assert found == 1


async def test_a_manifest_is_read_from_wherever_it_is(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its fsspec URL, with what the machine knows of its place."""
    for form in ("parquet", "jsonl"):
        await export([made(1), made(2)], any_store, any_store.uri(f"sets/shots.{form}"))
    monkeypatch.setitem(fsspec.config.conf, any_store.scheme, dict(any_store.options))
    for form in ("parquet", "jsonl"):
        found = await anyio.to_thread.run_sync(requests, any_store.uri(f"sets/shots.{form}"))
        assert found == [HORSE, HORSE]
    assert await anyio.to_thread.run_sync(requests, any_store.uri("sets/*.parquet")) == [HORSE, HORSE]
    assert await anyio.to_thread.run_sync(requests, any_store.uri("sets")) == [HORSE, HORSE]


async def test_without_pyarrow_the_way_out_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And JSON lines are written without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'prefect-happyhorse\[data\]'"):
        await export([made(1)], store, str(tmp_path / "shots.parquet"))
    assert (await export([made(1)], store, str(tmp_path / "shots.jsonl"))).rows == 1
    assert left(tmp_path) == ["shots.jsonl"]


async def test_requests_that_hold_pictures_are_written_a_few_at_a_time(store: Store, tmp_path: Path) -> None:
    """A row group holds no more than some megabytes of them."""
    big = TextToImage(model="m", prompt="x" * 6_000_000)
    await export([made(number, request=big) for number in range(7)], store, str(tmp_path / "shots.parquet"))
    assert pyarrow.parquet.ParquetFile(tmp_path / "shots.parquet").num_row_groups == 3


async def test_a_seed_that_no_column_can_hold_stands_in_the_request(store: Store, tmp_path: Path) -> None:
    """It fails no export."""
    request = TextToImage(model="m", prompt="A", seed=2**63)
    await export([made(1, request=request)], store, str(tmp_path / "shots.parquet"))
    assert rows_of(tmp_path / "shots.parquet")[0]["seed"] is None
    assert requests(tmp_path / "shots.parquet") == [request]


async def test_a_journal_is_gone_through_by_digest(store: Store) -> None:
    """Whole or for some digests, with what cannot be read in its place."""
    journal = Journal(store)
    entries = sorted((made(number) for number in range(5)), key=lambda entry: entry.digest)
    for entry in reversed(entries):
        await journal.create(entry)
    found = [one async for one in journal_entries(journal)]
    assert [one.digest for one in found if isinstance(one, JournalEntry)] == [entry.digest for entry in entries]
    wanted = [entries[3].digest, entries[1].digest, "0" * 64]
    found = [one async for one in journal_entries(journal, wanted)]
    assert [one.digest for one in found if isinstance(one, JournalEntry)] == [entries[1].digest, entries[3].digest]
    await store.write(journal.path(entries[0].digest, 1), b"{")
    assert [isinstance(one, Unreadable) async for one in journal_entries(journal)].count(True) == 1


class TestWebDataset:
    """Tar files with what was made in them."""

    @staticmethod
    def members(path: Path) -> dict[str, bytes]:
        with tarfile.open(path) as tar:
            found: Iterable[tarfile.TarInfo] = tar.getmembers()
            return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in found}

    async def test_a_file_lies_beside_its_row(self, any_store: Store, tmp_path: Path) -> None:
        """Under one key, which is the id, or where that cannot be a name, one that it is known by."""
        entries = [await kept(any_store, number, f"picture {number}".encode() * 1000) for number in (1, 2, 3)]
        ids = {entries[0].digest: "horse-1", entries[1].digest: "../a.b c"}
        done = await export(entries, any_store, str(tmp_path / "shots.tar"), ids=ids)
        assert (done.format, done.rows, done.files) == ("webdataset", 3, (f"file://{tmp_path}/shots-000000.tar",))
        found = self.members(tmp_path / "shots-000000.tar")
        other = f"a-b-c-{hashlib.sha256(b'../a.b c').hexdigest()[:16]}"
        keys = ["horse-1", other, entries[2].digest]
        assert list(found) == [f"{key}.{ending}" for key in keys for ending in ("png", "json")]
        for entry, key in zip(entries, keys, strict=True):
            row = json.loads(found[f"{key}.json"])
            assert (row["digest"], row["sha256"]) == (entry.digest, hashlib.sha256(found[f"{key}.png"]).hexdigest())
        assert json.loads(found[f"{other}.json"])["id"] == "../a.b c"

    async def test_shards_are_of_bounded_size(self, store: Store, tmp_path: Path) -> None:
        """A sample is never cut apart, and one that is too large has a shard of its own; the same export gives the same bytes."""
        sizes = [3_000, 3_000, 3_000, 30_000, 3_000]
        entries = [await kept(store, number, bytes([number]) * size) for number, size in enumerate(sizes)]
        written: list[list[bytes]] = []
        for name in ("one", "other"):
            done = await export(entries, store, str(tmp_path / f"{name}.tar"), shard_bytes=20_480)
            assert done.files == tuple(f"file://{tmp_path}/{name}-{number:06d}.tar" for number in range(3))
            written.append([Path(file.removeprefix("file://")).read_bytes() for file in done.files])
        assert [len(self.members(tmp_path / f"one-{number:06d}.tar")) for number in range(3)] == [6, 2, 2]
        assert [len(content) for content in written[0]] == [20_480, 40_960, 10_240]
        assert written[0] == written[1]

    async def test_overwritten_it_has_no_shard_of_the_earlier_one(self, store: Store, tmp_path: Path) -> None:
        """Which would be read as part of it."""
        entries = [await kept(store, number, bytes(5_000)) for number in range(3)]
        await export(entries, store, str(tmp_path / "shots.tar"), shard_bytes=1)
        assert left(tmp_path) == [f"shots-{number:06d}.tar" for number in range(3)]
        (tmp_path / "shots-000000.tar").unlink()
        with pytest.raises(FileExistsError, match="there is a shard already"):
            await export(entries[:1], store, str(tmp_path / "shots.tar"))
        await export(entries[:1], store, str(tmp_path / "shots.tar"), overwrite=True)
        assert left(tmp_path) == ["shots-000000.tar"]

    async def test_a_file_that_is_not_there_is_left_out_and_told(self, store: Store, tmp_path: Path) -> None:
        """So is one of another length, such as somebody's edit; the others are written."""
        entries = [await kept(store, number, b"picture") for number in range(3)]
        await store.delete("made/0.png")
        await store.write("made/1.png", b"another")
        await store.write("made/1.png", b"another picture")
        done = await export(entries, store, str(tmp_path / "shots.tar"))
        assert (done.rows, done.left_out) == (1, 2)
        assert done.problems == (
            f"{entries[0].digest}: {store.uri('made/0.png')} is not there any more",
            f"{entries[1].digest}: {store.uri('made/1.png')} must have 7 bytes (got 15)",
        )
        assert list(self.members(tmp_path / "shots-000000.tar")) == [f"{entries[2].digest}.png", f"{entries[2].digest}.json"]

    async def test_another_file_of_the_same_length_is_refused(self, store: Store, tmp_path: Path) -> None:
        """What stands in a row is true of the file beside it."""
        entry = await kept(store, 1, b"picture")
        await store.write("made/1.png", b"PICTURE")
        with pytest.raises(OSError, match=r"1\.png is not the file that was made: its sha256 must be"):
            await export([entry], store, str(tmp_path / "shots.tar"))
        assert left(tmp_path) == []

    async def test_an_empty_one_has_no_files(self, store: Store, tmp_path: Path) -> None:
        """There is nothing to read."""
        done = await export([], store, str(tmp_path / "shots.tar"))
        assert (done.rows, done.files, left(tmp_path)) == (0, (), [])
