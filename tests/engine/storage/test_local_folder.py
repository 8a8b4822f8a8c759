"""A store on the local disk, whatever its file system can do."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest

from prefect_happyhorse.engine.storage import local as disk
from prefect_happyhorse.engine.storage.store import Store


def names_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


async def test_failed_write_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half way leaves the file as it was and no rubbish behind."""
    store = Store(str(tmp_path))
    await store.write("a.json", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for call in (store.write("a.json", b"new"), store.create("b.json", b"new")):
            with pytest.raises(OSError, match="No space left"):
                await call
    assert (names_below(tmp_path), await store.read("a.json")) == (["a.json"], b"old")


async def test_never_half_written(tmp_path: Path) -> None:
    """Somebody who reads while others write sees one whole content or another."""
    store = Store(str(tmp_path))
    contents = {b"a" * 300_000, b"b" * 200_000}
    await store.write("x", min(contents))

    async def write() -> None:
        for _ in range(10):
            for content in contents:
                await store.write("x", content)

    async def read() -> set[bytes]:
        return {await store.read("x") for _ in range(40)}

    seen, _ = await asyncio.gather(read(), write())
    assert seen <= contents


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights.")
async def test_rights(tmp_path: Path) -> None:
    """Files get the rights that the user's mask gives, not those of a secret."""
    before = os.umask(0o022)
    try:
        store = Store(str(tmp_path / "outputs"))
        await store.write("a", b"1")
        await store.create("b", b"1")
    finally:
        os.umask(before)
    assert [(tmp_path / "outputs" / name).stat().st_mode & 0o777 for name in "ab"] == [0o644, 0o644]


async def test_unfinished_are_not_listed(tmp_path: Path) -> None:
    """What a killed process left half written is not listed."""
    store = Store(str(tmp_path))
    await store.write("a.json", b"1")
    await store.write("deep/b.json", b"1")
    for folder in (tmp_path, tmp_path / "deep"):
        (folder / f".0011{disk.TEMPORARY_SUFFIX}").write_bytes(b"half")
    assert await store.list("") == ["a.json"]
    assert [one async for one in store.list_all(["deep"])] == [("deep", ["b.json"])]


async def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies below it may stand for paid jobs, so it is never taken for nothing at all."""
    store = Store(str(tmp_path))
    await store.write("journal/ab/c.json", b"1")
    scandir = os.scandir

    def refuse(path: str | os.PathLike[str]) -> object:
        if Path(path).name == "ab":
            raise PermissionError(errno.EACCES, "not yours", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="not yours"):
        _ = [one async for one in store.list_all(["journal/ab"])]
    monkeypatch.setattr(os, "scandir", lambda _: refuse("ab"))
    with pytest.raises(PermissionError, match="not yours"):
        await store.folders("journal")


async def test_no_folder_is_an_empty_one_and_a_file_is_not(tmp_path: Path) -> None:
    """Before the first job there is no journal; where a file lies in its place, nothing can be said of it."""
    assert await Store(str(tmp_path / "outputs")).folders("journal") == []
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        await Store(str(tmp_path / "a-file")).folders("journal")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
async def test_keep_without_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another disk, or one without hard links, a file is kept all the same, and nothing is overwritten."""
    store = Store(str(tmp_path / "outputs"))
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        # Across disks only the first attempt fails: the copy lies beside the target.
        if code == errno.EXDEV and Path(source).parent == Path(target).parent:
            link(source, target)
            return
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    finished = tmp_path / "finished"
    finished.write_bytes(b"horse")
    await store.keep(finished, "deep/a.png")
    assert (finished.exists(), await store.read("deep/a.png")) == (False, b"horse")
    finished.write_bytes(b"other")
    for move in (True, False):
        with pytest.raises(FileExistsError):
            await store.keep(finished, "deep/a.png", move=move)
    await store.keep(finished, "b.png", move=False)
    assert (await store.read("deep/a.png"), await store.read("b.png"), finished.exists()) == (b"horse", b"other", True)
    assert names_below(tmp_path / "outputs") == ["a.png", "b.png", "deep"]


@pytest.mark.parametrize(("code", "windows"), [(errno.EPERM, None), (errno.EINVAL, 1), (errno.EINVAL, 50)])
async def test_no_claim_without_links(code: int, windows: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no safe way to claim a file, nothing is claimed, and the error says what to do; Windows has codes of its own."""

    class Refused(OSError):
        winerror = windows  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]

    def refuse(*_: object) -> None:
        raise Refused(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="no hard links, so a file cannot be created exclusively there; use another folder"):
        await Store(str(tmp_path)).create("claim", b"1")
    assert names_below(tmp_path) == []


async def test_link_fails_for_another_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other failure to put a file in its place is passed on, and the finished file stays."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refuse)
    store = Store(str(tmp_path / "outputs"))
    (tmp_path / "finished").write_bytes(b"1")
    for call in (
        store.create("claim", b"1"),
        store.keep(tmp_path / "finished", "a"),
        store.keep(tmp_path / "finished", "a", move=False),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await call
    assert (tmp_path / "finished").exists()


async def test_killed_between_link_and_unlink(tmp_path: Path) -> None:
    """A process that died after the file had got its second name, before it lost the first, did no harm."""
    store = Store(str(tmp_path / "outputs"))
    await store.write("a", b"horse")
    os.link(tmp_path / "outputs" / "a", tmp_path / "finished")
    await store.keep(tmp_path / "finished", "a")
    assert ((tmp_path / "finished").exists(), await store.read("a")) == (False, b"horse")


@pytest.mark.parametrize(("code", "is_fatal"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folders_that_cannot_be_synced(code: int, is_fatal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot sync folders is used as it is; a failing disk is not passed over."""

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if is_fatal:
        with pytest.raises(OSError, match=os.strerror(code)):
            disk.sync_folder(tmp_path)
    else:
        disk.sync_folder(tmp_path)


async def test_local_folders_sign_nothing(tmp_path: Path) -> None:
    """A local folder has no presigned addresses, and no public one unless it is given."""
    store = Store(str(tmp_path))
    assert await store.public_url("a") is None
    with pytest.raises(OSError, match="no addresses"):
        store._backend.sign("a", 60)
