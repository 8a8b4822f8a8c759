"""An output goes into the store once: nothing is overwritten, fetched twice, or lost when the store fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.engine.download.conftest import JOB, PLACE, VIDEO, Get, lying
from tests.engine.samples import movie, with_padding
from tests.engine.scripted_server import Wire, cut, file, stall

from prefect_happyhorse.domain.errors import DownloadFailed
from prefect_happyhorse.engine.download.download import DownloadOptions, forget_partial
from prefect_happyhorse.engine.media.probe import MediaNotReadable
from prefect_happyhorse.engine.storage.store import Store


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


async def test_file_without_a_thumbnail(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is whole but gives no thumbnail is kept without one."""

    def refuse(*_: object) -> bytes:
        raise MediaNotReadable("no thumbnail can be made of it")

    monkeypatch.setattr("prefect_happyhorse.engine.media.thumbnail._frame_of", refuse)
    async with Wire([file(VIDEO)]) as wire:
        assert (await get(wire.url(), with_thumbnail=True)).thumbnail is None


async def test_forget_while_somebody_is_at_it(get: Get, store: Store) -> None:
    """What somebody is at work on is not forgotten under his hands."""
    long = with_padding(movie(), 5 << 20)
    under_way = asyncio.Event()
    async with Wire([stall(long, 3 << 20), file(long)]) as wire:
        task = asyncio.create_task(
            get(wire.url(), options=DownloadOptions(stall_s=2, checkpoint_bytes=1), on_bytes=lambda *_: under_way.set())
        )
        await under_way.wait()
        await forget_partial(JOB, store=store)
        assert len(partial_files(store.scratch_dir())) == 1
        await task
    assert lying(store) == {PLACE: long}


async def test_finished_already(get: Get, store: Store) -> None:
    """A finished file is not fetched again after a crash between keeping it and writing that down."""
    async with Wire([file(VIDEO), file(VIDEO)]) as wire:
        first = await get(wire.url())
        second = await get(wire.url())
        assert (second.path, second.sha256, second.info, second.reused) == (first.path, first.sha256, first.info, True)
        assert len(wire.received) == 1
        await forget_partial(JOB, store=store)
        third = await get(wire.url())
    assert (third.path, third.sha256, third.reused) == (first.path, first.sha256, False)
    assert lying(store) == {PLACE: VIDEO}
    await forget_partial(JOB, store=store)
    assert [path.name for path in store.scratch_dir().iterdir()] == ["locks"]


async def test_finished_file_changed(get: Get, store: Store) -> None:
    """A file that somebody changed or removed since is not taken for the finished one."""
    async with Wire([file(VIDEO), file(VIDEO)]) as wire:
        await get(wire.url())
        (Path(store.folder or "") / PLACE).unlink()
        kept = await get(wire.url())
    assert kept.reused is False
    assert lying(store) == {PLACE: VIDEO}


async def test_never_overwrites(get: Get, store: Store) -> None:
    """A different file in the place stays as it is; once it is gone, what was fetched is kept without fetching it again."""
    place = Path(store.folder or "") / PLACE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with Wire([file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed, match=r"another file lies at .*, and nothing is overwritten") as caught:
            await get(wire.url())
        assert (lying(store), caught.value.advice) == ({PLACE: b"mine"}, "Move that file away and collect the job again.")
        place.unlink()
        await get(wire.url())
    assert len(wire.received) == 1
    assert lying(store) == {PLACE: VIDEO}


async def test_template_changed_in_between(get: Get, store: Store) -> None:
    """What was fetched before a crash goes where the store's template says now."""
    place = Path(store.folder or "") / PLACE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with Wire([file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url())
        kept = await get(wire.url(), store=Store(store.url, template="{kind}/{task_id}{suffix}.{ext}"))
    assert kept.path == "video/0123456789abcdef.mp4"
    assert len(wire.received) == 1


async def test_outputs_of_one_job(get: Get, store: Store) -> None:
    """Further outputs of a job get a place of their own."""
    async with Wire([file(VIDEO)] * 2) as wire:
        kept = [await get(wire.url(), index=index) for index in (0, 1)]
    assert [one.path for one in kept] == [PLACE, PLACE.replace(".mp4", "-2.mp4")]
    assert lying(store) == {one.path: VIDEO for one in kept}


async def test_two_at_once(get: Get, client: httpx.AsyncClient, store: Store) -> None:
    """Two who want the same output at the same time fetch it once between them."""
    second_waits = asyncio.Event()

    async def nap(_: float) -> None:
        second_waits.set()
        await asyncio.sleep(0.01)

    async def gate(request: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await second_waits.wait()
        await file(VIDEO)(request, reader, writer)  # type: ignore[arg-type]

    async with Wire([gate]) as wire:
        kept = await asyncio.gather(get(wire.url(), sleep=nap), get(wire.url(), sleep=nap))
    assert sorted(one.reused for one in kept) == [False, True]
    assert len(wire.received) == 1
    assert lying(store) == {PLACE: VIDEO}


async def test_thumbnail(get: Get) -> None:
    """A thumbnail is made from the file that came, where one is wanted; also of a file that was there already."""
    async with Wire([file(VIDEO)]) as wire:
        first = await get(wire.url(), with_thumbnail=True)
        second = await get(wire.url(), with_thumbnail=True)
    assert first.thumbnail is not None
    assert first.thumbnail.startswith(b"\xff\xd8\xff")
    assert second.thumbnail == first.thumbnail
    assert repr(first.thumbnail[:8]) not in repr(first)


async def test_object_store(get: Get, tmp_path: Path) -> None:
    """A store that is no local folder gets the file in one piece, and the partial file is gone."""
    store = Store("memory://outputs-of-a-test", scratch=str(tmp_path))
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        kept = await get(wire.url(), store=store, with_thumbnail=True)
        again = await get(wire.url(), store=store)
    assert (kept.uri, again.reused, kept.thumbnail is None) == (f"memory://outputs-of-a-test/{PLACE}", True, False)
    assert await store.read(PLACE) == VIDEO
    assert partial_files(tmp_path) == []


async def test_store_down(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store takes nothing, what was fetched waits here, and is not fetched again."""
    import fsspec.implementations.memory

    store = Store("memory://down", scratch=str(tmp_path))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host")

    async with Wire([file(VIDEO)]) as wire:
        with monkeypatch.context() as patch:
            patch.setattr(fsspec.implementations.memory.MemoryFileSystem, "put_file", broken)
            with pytest.raises(DownloadFailed, match=r"could not be written to memory://down: .*no route to host"):
                await get(wire.url(), store=store)
        kept = await get(wire.url(), store=store)
    assert (kept.path, len(wire.received)) == (PLACE, 1)
