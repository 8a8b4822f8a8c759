"""Stores: one suite for every kind of place, and what is special about each."""

from __future__ import annotations

import asyncio
import copy
import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.storage import local as disk
from prefect_happyhorse.engine.storage import store as store_module
from prefect_happyhorse.engine.storage.paths import DEFAULT_TEMPLATE, safe
from prefect_happyhorse.engine.storage.store import Store

StoreMaker = Callable[..., Store]


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> StoreMaker:
    endpoint: str = request.getfixturevalue("s3_endpoint")
    options = {"key": "testing", "secret": "sesame", "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    bucket = f"bucket-{os.urandom(6).hex()}"
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/s3/aws4_request"}
    httpx.put(f"{endpoint}/{bucket}", headers=signed).raise_for_status()

    def make(**facts: Any) -> Store:
        return Store(f"s3://{bucket}/outputs", options=options, **facts)

    return make


@pytest.fixture(params=["local", "memory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "outputs"))
    if request.param == "memory":
        return Store(f"memory://{os.urandom(6).hex()}", scratch=str(tmp_path / "scratch"))
    return request.getfixturevalue("s3")(scratch=str(tmp_path / "scratch"))


def names_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


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


async def test_create_is_exclusive(any_store: Store) -> None:
    """Of many who claim the same file at the same time exactly one gets it, and its content stays."""
    other = Store(any_store.url, options=any_store.options)
    claims = [b"%d" % number for number in range(16)]
    won = await asyncio.gather(*((any_store, other)[number % 2].create("claim", claim) for number, claim in enumerate(claims)))
    assert won.count(True) == 1
    assert await any_store.read("claim") == claims[won.index(True)]
    assert await any_store.create("claim", b"late") is False
    await any_store.delete("claim")
    assert await any_store.create("claim", b"again") is True


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
    for call in (any_store.read, any_store.size, any_store.exists, any_store.delete):
        with pytest.raises(ValueError, match=r"store's folder|part of it is empty|backslash"):
            await call(path)
    for write in (any_store.write, any_store.create):
        with pytest.raises(ValueError, match=r"store's folder|part of it is empty|backslash"):
            await write(path, b"")


async def test_off_the_loop(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that blocks runs on the event loop's thread."""
    backend = any_store._backend
    threads: list[int] = []
    for name in ("size", "read", "write", "create", "delete", "names", "keep", "hash"):
        original = getattr(backend, name)

        def spy(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            threads.append(threading.get_ident())
            return _original(*args, **kwargs)

        monkeypatch.setattr(backend, name, spy)
    await any_store.write("a", b"1")
    await any_store.create("b", b"1")
    await any_store.read("a")
    await any_store.list("")
    await any_store.holds("a", length=1, sha256="")
    assert len([one async for one in any_store.read_all(["a", "b"])]) == 2
    await any_store.delete("a")
    assert len(threads) == 9
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
        lambda: down.create("a", b"1"),
        lambda: down.keep(tmp_path / "finished", "a"),
        lambda: anext(down.read_all(["a"])),
    ):
        with pytest.raises(OSError, match="s3://bucket/outputs") as caught:
            await call()
        assert not isinstance(caught.value, (FileNotFoundError, FileExistsError))
        assert "sesame" not in str(caught.value)
    assert (tmp_path / "finished").exists()


async def test_wrong_key_is_not_missing(s3: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal by the store is not taken for the absence of a file."""
    store = s3()
    fs, _ = store._backend._opened  # pyright: ignore[reportAttributeAccessIssue]

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(fs, "info", refuse)
    with pytest.raises(PermissionError):
        await store.exists("a")


@pytest.mark.parametrize(("conflicts", "is_won"), [(1, True), (4, True), (5, None)])
async def test_conflict(conflicts: int, is_won: bool | None, s3: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When S3 cannot tell who was first and asks to try again, that is done, a few times."""
    from botocore.exceptions import ClientError

    store = s3()
    fs, _ = store._backend._opened  # pyright: ignore[reportAttributeAccessIssue]
    pipe_file, left = fs.pipe_file, [None] * conflicts

    def conflict(*args: Any, **kwargs: Any) -> None:
        if left:
            left.pop()
            cause = ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": "Conflict"}}, "PutObject")
            raise OSError(errno.EBUSY, "Conflict") from cause
        pipe_file(*args, **kwargs)

    monkeypatch.setattr(fs, "pipe_file", conflict)
    if is_won is None:
        with pytest.raises(OSError, match="Conflict"):
            await store.create("claim", b"1")
    else:
        assert await store.create("claim", b"1") is is_won


async def test_presigned(s3: StoreMaker, tmp_path: Path) -> None:
    """A presigned address lets anybody read the file, with its media type, and the secret is not in it."""
    store = s3(presign_s=600)
    (tmp_path / "horse").write_bytes(b"horse")
    await store.keep(tmp_path / "horse", "a b/horse.png")
    url = await store.public_url("a b/horse.png")
    assert url is not None
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"horse", "image/png")
    assert ("sesame" in url, "Expires" in url) == (False, True)


async def test_large_upload(s3: StoreMaker, tmp_path: Path) -> None:
    """A file that goes up in several parts is one file, and exclusive too."""
    store, content = s3(), os.urandom(1 << 20) * 20
    for part in (content, content):
        (tmp_path / "long").write_bytes(part)
        await store.keep(tmp_path / "long", "long.mp4")
    (tmp_path / "long").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FileExistsError):
        await store.keep(tmp_path / "long", "long.mp4")
    assert await store.holds("long.mp4", length=len(content), sha256=hashlib.sha256(content).hexdigest())


async def test_two_machines(s3: StoreMaker) -> None:
    """Processes that share nothing but the bucket cannot both claim a file."""
    store = s3()
    code = (
        "import asyncio, json, sys; from prefect_happyhorse.engine.storage.store import Store;"
        "url, options, me = sys.argv[1:];"
        "print(asyncio.run(Store(url, options=json.loads(options)).create('claim', me.encode())))"
    )
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, store.url, json.dumps(dict(store.options)), f"p{number}", stdout=subprocess.PIPE
        )
        for number in range(2)
    ]
    won = [(await child.communicate())[0].strip() for child in children]
    assert sorted(won) == [b"False", b"True"]
    assert await store.read("claim") == f"p{won.index(b'True')}".encode()


async def test_no_safe_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose filesystem only pretends to create exclusively refuses to claim, rather than let two submit."""
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.spec import AbstractFileSystem

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", AbstractFileSystem.pipe_file)
    with pytest.raises(OSError, match="cannot claim a file safely") as caught:
        await Store("memory://x").create("claim", b"")
    assert caught.value.errno == errno.ENOTSUP


async def test_upload_without_exclusive_creation(tmp_path: Path) -> None:
    """Where a filesystem has no exclusive upload, it is looked first, and a different file is refused all the same."""
    store = Store(f"memory://{os.urandom(6).hex()}")
    (tmp_path / "a").write_bytes(b"horse")
    await store.keep(tmp_path / "a", "a")
    (tmp_path / "a").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        await store.keep(tmp_path / "a", "a")
    with pytest.raises(OSError, match="no presigned addresses"):
        await Store(store.url, presign_s=60).public_url("a")


async def test_missing_package() -> None:
    """A store whose package is not installed says which one is missing."""
    with pytest.raises(ImportError, match="adlfs"):
        await Store("abfs://container/outputs", options={"account_name": "x"}).exists("a")


# Local folders


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
    (tmp_path / f".0011{disk.TEMPORARY_SUFFIX}").write_bytes(b"half")
    assert await store.list("") == ["a.json"]


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


async def test_no_claim_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no safe way to claim a file, nothing is claimed, and the error says what to do."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="no hard links, so a file cannot be claimed safely there; use another folder"):
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


async def test_public_base_url(tmp_path: Path) -> None:
    """Under a public base URL, what is special in a URL is quoted."""
    store = Store(str(tmp_path), public_base_url="https://media.example.com/out/")
    assert await store.public_url("a b/50% #1?.png") == "https://media.example.com/out/a%20b/50%25%20%231%3F.png"
    with pytest.raises(ValueError, match="leaves"):
        await store.public_url("../x")


# What a store is made of


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder counts from where the process was when the store was made."""
    monkeypatch.chdir(tmp_path)
    stores = [Store(url) for url in ("outputs", "./x/../outputs", "file://outputs", "local://outputs", f"file://{tmp_path}/outputs")]
    monkeypatch.chdir("/")
    assert {store.url for store in stores} == {f"file://{tmp_path.as_posix()}/outputs"}
    assert {store.folder for store in stores} == {tmp_path / "outputs"}


def test_uri(tmp_path: Path) -> None:
    """A file's URL is one that fsspec opens, and the store knows its own."""
    import fsspec

    store = Store(str(tmp_path / "a b"))
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "50% #1.png").write_bytes(b"horse")
    uri = store.uri("50% #1.png")
    with fsspec.open(uri, "rb") as file:
        assert file.read() == b"horse"
    assert store.path_of(uri) == "50% #1.png"
    assert [store.path_of(other) for other in (f"file://{tmp_path}/b", f"{store.url}/../x", store.url, "s3://a/b")] == [None] * 4


def test_secrets_do_not_show() -> None:
    """The options, keys among them, are never shown."""
    assert "sesame" not in repr(Store("s3://bucket", options={"secret": "sesame"}))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"url": ""}, "is empty"),
        ({"url": "https://example.com/x"}, "a store is a local folder or an fsspec URL"),
        ({"url": "data:,x"}, "a store is a local folder or an fsspec URL"),
        ({"url": "ftp://example.com/x"}, "scheme 'ftp'"),
        ({"url": "s3:bucket"}, "a store is a local folder or an fsspec URL"),
        ({"url": "s3://key:sesame@bucket/x"}, "must hold no key or password"),
        ({"url": "s3://bucket/x::file://y"}, "chained"),
        ({"url": "s3://b", "presign_s": 0}, "presign_s=0: allowed is 1 or more"),
        ({"url": "outputs", "presign_s": 60}, "a local folder has no presigned addresses"),
        ({"url": "outputs", "public_base_url": "ftp://example.com"}, "an http or https address"),
        ({"url": "outputs", "public_base_url": "https://user:sesame@example.com"}, "must hold no user name or password"),
        ({"url": "outputs", "public_base_url": "https://example.com/?a=b"}, "no query or fragment"),
        ({"url": "outputs", "template": "{date}"}, r"{task_id} is missing.*{suffix} or {index} is missing.*must end with .{ext}"),
        ({"url": "outputs", "template": "{job}/{task_id}{suffix}.{ext}"}, "the field {job} is unknown; known are date, gateway"),
        ({"url": "outputs", "template": "{task_id.x}{suffix}.{ext}"}, "the field {task_id.x} is unknown"),
        ({"url": "outputs", "template": "{task_id!r}{suffix}.{ext}"}, "takes no format or conversion"),
        ({"url": "outputs", "template": "{task_id:>9}{suffix}.{ext}"}, "takes no format or conversion"),
        ({"url": "outputs", "template": "{task_id}{suffix.{ext}"}, "cannot be read"),
        ({"url": "outputs", "template": "../{task_id}{suffix}.{ext}"}, "leaves the store's folder"),
        ({"url": "outputs", "template": "/x/{task_id}{suffix}.{ext}"}, "leaves the store's folder"),
        ({"url": "outputs", "template": "x//{task_id}{suffix}.{ext}"}, "a part of it is empty"),
        ({"url": "outputs", "template": "x\\{task_id}{suffix}.{ext}"}, "backslash"),
    ],
)
def test_refused(facts: dict[str, Any], message: str) -> None:
    """A store that could not work is refused when it is made, and no secret is repeated."""
    with pytest.raises(ValueError, match=message) as caught:
        Store(**facts)
    assert "sesame" not in str(caught.value)


def test_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial downloads lie beside the outputs of a local store; for others in a folder of the user's own, one for each store."""
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path))
    local = Store(str(tmp_path / "outputs")).scratch_dir()
    far = [Store(url).scratch_dir() for url in ("s3://a", "s3://b", "s3://a")]
    chosen = Store("s3://a", scratch=str(tmp_path / "mine")).scratch_dir()
    assert local == tmp_path / "outputs" / ".partial"
    assert (far[0] == far[2], far[0] == far[1], far[0].parent) == (True, False, tmp_path / "cache" / "partial")
    assert chosen.parent == tmp_path / "mine"
    assert all(folder.is_dir() for folder in (local, *far, chosen))


def test_scratch_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's cache cannot be written to, a temporary folder does."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(store_module.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))  # pyright: ignore[reportUnknownLambdaType]
    assert Store("s3://a").scratch_dir() == tmp_path / "prefect-happyhorse-"


# Where an output goes

TEXT = st.text(max_size=120)
WHEN = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.timezones())  # noqa: DTZ001 -- the strategy adds the zone


def job(task_id: str = "t-1", **changes: Any) -> Job:
    facts: dict[str, Any] = {"gateway": "ttapi", "account": "a", "capability": "text_to_video", "model": "m", "digest": "d"}
    return Job(**(facts | {"submitted_at": datetime(2026, 11, 20, tzinfo=timezone.utc)} | changes), task_id=task_id)


@given(text=TEXT)
@example(text="..")
@example(text="CON")
@example(text="con.txt")
@example(text="\ud800")
def test_safe_values(text: str) -> None:
    """Whatever a provider calls a job or model, it becomes an ordinary part of a path."""
    value = safe(text)
    assert 1 <= len(value) <= 80
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert value not in {".", ".."}
    assert value.upper().partition(".")[0] not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}


@given(one=TEXT, other=TEXT)
@example(one="a/b", other="a:b")
@example(one="a" * 100, other="a" * 101)
@example(one="", other=".")
def test_safe_values_stay_apart(one: str, other: str) -> None:
    """Different values stay different."""
    assume(one != other)
    assert safe(one) != safe(other)


FIELDS = ["{date}", "{gateway}", "{account}", "{capability}", "{model}", "{digest}", "{kind}", "-", "_", ".", "x"]


@given(
    parts=st.lists(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=5).map("".join), max_size=4),
    facts=st.fixed_dictionaries(dict.fromkeys(("task_id", "gateway", "account", "capability", "model", "digest"), TEXT)),
    when=WHEN,
    index=st.integers(0, 99),
)
def test_rendered_paths(parts: list[str], facts: dict[str, str], when: datetime, index: int) -> None:
    """A rendered path never leaves the store, whatever the template and the provider say, and every system can write it."""
    assume(not any(part in {".", ".."} for part in parts))
    template = "/".join([*parts, "{task_id}{suffix}.{ext}"])
    store = Store("memory://x", template=template)
    path = store.path_for(job(**facts, submitted_at=when), index=index, extension="mp4", kind="video")
    assert path.endswith(".mp4")
    assert store.path_of(store.uri(path)) == path
    assert all(0 < len(segment) <= 200 and segment not in {".", ".."} for segment in path.split("/"))


IDS = st.one_of(
    TEXT,
    st.uuids().map(str),
    st.from_regex(r"[a-z]{1,4}_[A-Za-z0-9]{16,20}", fullmatch=True),
    st.from_regex(r"[ab](-[ab2]){0,4}", fullmatch=True),
)


@given(
    one=st.tuples(IDS, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["ttapi", "uniall"]), st.integers(0, 3)),
    other=st.tuples(IDS, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["ttapi", "uniall"]), st.integers(0, 3)),
)
@example(one=("t", "m", "ttapi", 1), other=("t-2", "m", "ttapi", 0))
@example(one=("t", "m", "ttapi", 0), other=("t", "m", "uniall", 0))
@example(one=("b-c", "a", "ttapi", 0), other=("c", "a-b", "ttapi", 0))
@example(one=("0123456789abcdef", "a-b", "ttapi", 0), other=("b-0123456789abcdef", "a", "ttapi", 0))
@example(one=("a/b", "m", "ttapi", 0), other=("a:b", "m", "ttapi", 0))
def test_every_output_has_its_own_place(one: tuple[str, str, str, int], other: tuple[str, str, str, int]) -> None:
    """Two outputs get the same path only if they are the same output of the same job."""
    # A long random id names a job by itself: no two gateways give out the same.
    assume((one[0], one[3]) != (other[0], other[3]) or len(one[0]) < 16)
    assume(one != other)
    store = Store("memory://x", template=DEFAULT_TEMPLATE)
    paths = {
        store.path_for(job(task_id, model=model, gateway=gateway), index=index, extension="mp4", kind="video")
        for task_id, model, gateway, index in (one, other)
    }
    assert len(paths) == 2


def test_default_template() -> None:
    """An output lies under its day, in UTC, and its capability, and its name tells model and task."""
    id_ = str(UUID(int=7))
    at = datetime(2026, 11, 21, 1, tzinfo=timezone(timedelta(hours=8)))
    path = Store("memory://x").path_for(job(id_, submitted_at=at), index=0, extension="mp4", kind="video")
    assert path == f"2026-11-20/text_to_video/m-{id_}.mp4"


def test_long_names() -> None:
    """A name too long for a file system is cut and stays its own; the extension stays."""
    store = Store("memory://x", template="{digest}{account}{model}{task_id}{suffix}.{ext}")
    paths = [store.path_for(job("t" * 60 + end, model="m" * 80, digest="d" * 80), index=0, extension="mp4", kind="video") for end in "ab"]
    assert [len(path) <= 200 and path.endswith(".mp4") for path in paths] == [True, True]
    assert paths[0] != paths[1]
    endless = Store("memory://x", template="x" * 300 + "/{task_id}{suffix}.{ext}")
    assert len(endless.path_for(job(), index=0, extension="mp4", kind="video").split("/")[0]) <= 200
