"""What every store does alike: a local folder, memory and S3."""

from __future__ import annotations

import asyncio
import copy
import errno
import hashlib
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from prefect_happyhorse.engine.storage.local import LocalFolder
from prefect_happyhorse.engine.storage.store import Store


async def test_write_and_read(any_store: Store) -> None:
    """What is written is read, as long as it is, and a later write takes its place."""
    await any_store.write("a/b.json", b"one")
    await any_store.write("a/b.json", b"two!")
    assert (await any_store.read("a/b.json"), await any_store.size("a/b.json"), await any_store.exists("a/b.json")) == (b"two!", 4, True)


async def test_missing(any_store: Store) -> None:
    """What is not there is said not to be there; a folder is no file; deleting nothing is fine."""
    await any_store.write("a/b.json", b"one")
    assert [await any_store.exists(path) for path in ("x", "a", "a/b.json")] == [False, False, True]
    with pytest.raises(FileNotFoundError):
        await any_store.read("x")
    with pytest.raises(FileNotFoundError):
        await any_store.size("a")
    await any_store.delete("x")
    await any_store.delete("a/b.json")
    assert await any_store.exists("a/b.json") is False


async def test_list(any_store: Store) -> None:
    """A folder lists the names of its files, sorted, and not those of folders below it; what others wrote since is there."""
    assert await any_store.list("journal") == []
    for path in ("journal/b.json", "journal/a.json", "journal/deep/c.json", "top.json"):
        await any_store.write(path, b"{}")
    assert (await any_store.list("journal"), await any_store.list("")) == (["a.json", "b.json"], ["top.json"])
    # As another process would: fsspec shares what it has opened within one.
    await Store(any_store.url, options={**any_store.options, "skip_instance_cache": True}).write("journal/c.json", b"{}")
    assert await any_store.list("journal") == ["a.json", "b.json", "c.json"]


async def test_folders(any_store: Store) -> None:
    """The folders directly in a folder are found, and their files listed together; what others wrote since is there."""
    assert await any_store.folders("journal") == []
    for path in ("journal/a.json", "journal/ab/c.json", "journal/ab/cd/e.json", "journal/zz/a.json", "journal2/a.json", "b/journal/b"):
        await any_store.write(path, b"{}")
    assert sorted(await any_store.folders("journal")) == ["ab", "zz"]
    assert await any_store.folders("nowhere/at/all") == []
    await Store(any_store.url, options={**any_store.options, "skip_instance_cache": True}).write("journal/yy/f.json", b"{}")
    assert sorted(await any_store.folders("journal")) == ["ab", "yy", "zz"]
    listed = {path: names async for path, names in any_store.list_all(["journal/ab", "journal/yy", "journal", "nowhere"])}
    assert listed == {"journal/ab": ["c.json"], "journal/yy": ["f.json"], "journal": ["a.json"], "nowhere": []}


async def test_many_files_are_looked_for_together(any_store: Store) -> None:
    """By what their paths begin with, and for their lengths; one that is missing has neither."""
    for path in ("journal/ab/abc.1.json", "journal/ab/abc.2.json", "journal/ab/abd.1.json", "journal/cd/cde.1.json"):
        await any_store.write(path, b"{}")
    starts = ["journal/ab/abc.", "journal/ab/abe.", "journal/cd/cde.", "journal/ab/abd.", "journal/ef/efg."]
    found = {start: sorted(names) async for start, names in any_store.list_starting(starts)}
    assert found == dict(zip(starts, (["abc.1.json", "abc.2.json"], [], ["cde.1.json"], ["abd.1.json"], []), strict=True))
    assert await any_store.sizes(["journal/ab/abc.1.json", "journal/ab/none.json"]) == {"journal/ab/abc.1.json": 2}


async def test_a_folder_is_listed_once_for_all_that_is_sought_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: a journal's folders are long."""
    listed: list[str] = []
    names = LocalFolder.names

    def counted(self: LocalFolder, path: str, start: str) -> list[str]:
        listed.append(path)
        return names(self, path, start)

    monkeypatch.setattr(LocalFolder, "names", counted)
    starts = [f"journal/{folder}/{number}." for number in range(9) for folder in ("ab", "cd")]
    assert [found async for _, found in Store(str(tmp_path)).list_starting(starts)] == [[]] * 18
    assert listed == ["journal/ab", "journal/cd"]


async def test_delete_all(any_store: Store) -> None:
    """All of them go, and one that is gone already is no error."""
    for name in "abc":
        await any_store.write(f"many/{name}", b"1")
    await any_store.delete_all(["many/a", "many/missing", "many/c"])
    assert await any_store.list("many") == ["b"]


def many(store: Store) -> int:
    """More files than are read at a time."""
    return 80 if store.scheme == "s3" else 300


async def test_read_all(any_store: Store) -> None:
    """Of many files all are read, each once, also where they lie in several folders; one that is not there is left out."""
    paths = [f"journal/{number}.json" if number % 2 else f"journal/deep/{number}.json" for number in range(many(any_store))]
    for number, path in enumerate(paths):
        await any_store.write(path, b"%d" % number)
    wanted = [*paths, "journal/missing.json", "nowhere/at/all.json"]
    found = [one async for one in any_store.read_all(wanted)]
    assert sorted(found) == sorted((path, b"%d" % number) for number, path in enumerate(paths))
    assert [one async for one in any_store.read_all(paths[:1])] == [(paths[0], b"0")]
    assert [one async for one in any_store.read_all([])] == []


async def test_read_all_while_files_go(any_store: Store) -> None:
    """A file that somebody removes after it was listed, and before its turn came, is left out, and the others are read."""
    paths = [f"journal/{number}.json" for number in range(many(any_store))]
    for path in paths:
        await any_store.write(path, b"{}")
    left: list[str] = []
    async for path, _ in any_store.read_all(paths):
        if not left:
            await any_store.delete(paths[-1])
        left.append(path)
    assert sorted(left) == sorted(paths[:-1])


async def test_read_all_stays_inside(any_store: Store) -> None:
    """One path that leaves the folder, and nothing is read."""
    await any_store.write("a", b"1")
    read = any_store.read_all(["a", "../a"])
    with pytest.raises(ValueError, match="store's folder"):
        await anext(read)


async def test_read_all_tells_failures(tmp_path: Path) -> None:
    """What is there and cannot be read is no file that is missing."""
    store = Store(str(tmp_path / "outputs"))
    await store.write("a", b"1")
    await store.write("b/c", b"2")
    with pytest.raises(IsADirectoryError):
        _ = [one async for one in store.read_all(["a", "b"])]
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        _ = [one async for one in Store(str(tmp_path / "a-file" / "outputs")).read_all(["a"])]


async def test_read_all_names_what_it_could_not_read(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store's own error may name the bucket alone; its kind stays."""
    await any_store.write("a/b", b"1")

    def refuse(path: str) -> bytes:
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(any_store._backend, "read", refuse)
    with pytest.raises(PermissionError, match="not yours") as caught:
        _ = [one async for one in any_store.read_all(["a/b"])]
    assert caught.value.filename == any_store.uri("a/b")


@pytest.mark.parametrize(("url", "at_once"), [("outputs", 1), ("memory://outputs", 32)])
async def test_read_all_at_once(url: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a disk are read one after the other in one thread, those of an object store side by side, for each takes its time."""
    monkeypatch.chdir(tmp_path)
    store = Store(url)
    paths = [f"at-once/{number}" for number in range(100)]
    for path in paths:
        await store.write(path, b"1")
    backend, lock, running, most = store._backend, threading.Lock(), 0, 0
    # As many as are meant to be read at once have to have come before one goes on.
    meeting, read = threading.Barrier(at_once), backend.read

    def counted(path: str) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if int(path.removeprefix("at-once/")) < 96:
            meeting.wait(10)
        content = read(path)
        with lock:
            running -= 1
        return content

    monkeypatch.setattr(backend, "read", counted)
    assert len([one async for one in store.read_all(paths)]) == 100
    assert most == at_once


async def test_keep(any_store: Store, tmp_path: Path) -> None:
    """A finished file is moved into its place; the same file again is fine; a different one is refused and stays where it is."""
    finished = tmp_path / "finished"
    for content in (b"horse", b"horse"):
        finished.write_bytes(content)
        await any_store.keep(finished, "deep/horse.png")
        assert finished.exists() is False
    for different in (b"other", b"longer than that"):
        finished.write_bytes(different)
        with pytest.raises(FileExistsError) as caught:
            await any_store.keep(finished, "deep/horse.png")
        assert str(caught.value.filename).endswith("outputs/deep/horse.png") or "memory" in any_store.url
        assert finished.read_bytes() == different
    assert await any_store.read("deep/horse.png") == b"horse"


async def test_keep_a_copy(any_store: Store, tmp_path: Path) -> None:
    """A file that belongs to the user is copied, so that it stays and later changes of it do not reach the copy."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"horse")
    await any_store.keep(mine, "inputs/horse.png", move=False)
    mine.write_bytes(b"changed")
    assert await any_store.read("inputs/horse.png") == b"horse"


async def test_keep_is_exclusive(any_store: Store, tmp_path: Path) -> None:
    """Of many different files that are to go to the same place at the same time exactly one does."""
    files = [tmp_path / f"file-{number}" for number in range(8)]
    for file in files:
        file.write_bytes(file.name.encode())
    results = await asyncio.gather(*(any_store.keep(file, "place") for file in files), return_exceptions=True)
    won = [file for file, result in zip(files, results, strict=True) if result is None]
    assert len(won) == 1
    assert {type(result) for result in results} == {type(None), FileExistsError}
    assert await any_store.read("place") == won[0].name.encode()


async def test_holds(any_store: Store) -> None:
    """A file is told from others by its length and content."""
    await any_store.write("a", b"horse")
    digest = hashlib.sha256(b"horse").hexdigest()
    assert [
        await any_store.holds("a", length=5, sha256=digest),
        await any_store.holds("a", length=6, sha256=digest),
        await any_store.holds("a", length=5, sha256="00"),
        await any_store.holds("b", length=5, sha256=digest),
    ] == [True, False, False, False]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../x", "a//b", "./a", "a\\b", "C:/x", "a\x00b"])
async def test_paths_stay_inside(path: str, any_store: Store) -> None:
    """No path leads out of the store's folder, in any operation."""
    for call in (any_store.read, any_store.size, any_store.exists, any_store.delete, any_store.folders, any_store.prove):
        with pytest.raises(ValueError, match=r"store's folder|part of it is empty|backslash"):
            await call(path)
    for write in (any_store.write, any_store.create):
        with pytest.raises(ValueError, match=r"store's folder|part of it is empty|backslash"):
            await write(path, b"")


async def test_off_the_loop(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that blocks runs on the event loop's thread."""
    backend = any_store._backend
    threads: list[int] = []
    for name in ("size", "read", "write", "create", "delete", "names", "folders", "keep", "hash"):
        original = getattr(backend, name)

        def spy(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            threads.append(threading.get_ident())
            return _original(*args, **kwargs)

        monkeypatch.setattr(backend, name, spy)
    await any_store.write("a", b"1")
    await any_store.create("b", b"1")
    await any_store.read("a")
    await any_store.list("")
    await any_store.folders("deep")
    await any_store.holds("a", length=1, sha256="")
    assert len([one async for one in any_store.read_all(["a", "b"])]) == 2
    await any_store.delete("a")
    assert len(threads) == 10
    assert threading.get_ident() not in threads


async def test_copies(any_store: Store) -> None:
    """A store that was used can be pickled, copied and compared, and what it opened is not part of it."""
    await any_store.write("a", b"1")
    twin = pickle.loads(pickle.dumps(any_store))  # noqa: S301 -- its own
    assert (twin, copy.deepcopy(any_store), hash(twin)) == (any_store, any_store, hash(any_store))
    assert await twin.read("a") == b"1"


async def test_unreachable_is_not_missing(tmp_path: Path) -> None:
    """A store that cannot be reached says so; it never says that a file is not there."""
    options = {
        "key": "x",
        "secret": "sesame",
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    down = Store("s3://bucket/outputs", options=options)
    (tmp_path / "finished").write_bytes(b"1")
    for call in (
        lambda: down.exists("a"),
        lambda: down.list("a"),
        lambda: down.folders("a"),
        lambda: down.prove("a/b"),
        lambda: down.create("a", b"1"),
        lambda: down.keep(tmp_path / "finished", "a"),
        lambda: anext(down.read_all(["a"])),
    ):
        with pytest.raises(OSError, match="s3://bucket/outputs") as caught:
            await call()
        assert not isinstance(caught.value, (FileNotFoundError, FileExistsError))
        assert "sesame" not in str(caught.value)
    assert (tmp_path / "finished").exists()


async def test_a_range_is_read(any_store: Store) -> None:
    """As long as it is, shorter only where the file ends; a missing file is said to be missing."""
    await any_store.write("a/b.bin", bytes(range(100)))
    assert await any_store.read_range("a/b.bin", 10, 5) == bytes(range(10, 15))
    assert await any_store.read_range("a/b.bin", 95, 50) == bytes(range(95, 100))
    with pytest.raises(FileNotFoundError):
        await any_store.read_range("a/c.bin", 0, 5)
