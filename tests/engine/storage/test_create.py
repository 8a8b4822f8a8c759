"""Of two who create the same file one does, also where an answer is lost; a store that cannot keep two apart is found out."""

from __future__ import annotations

import asyncio
import errno

import pytest

from prefect_happyhorse.engine.storage.store import Store


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


async def test_a_lost_answer_is_looked_up(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was created, and the store's answer got lost: it is read back, and is ours; another's is not, and the error stays."""
    create = any_store._backend.create

    def lost(path: str, data: bytes) -> bool:
        create(path, data)
        raise OSError(errno.ETIMEDOUT, "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(any_store._backend, "create", lost)
        assert await any_store.create("claim", b"mine") is True
        with pytest.raises(OSError, match="no answer"):
            await any_store.create("claim", b"other")
    assert await any_store.read("claim") == b"mine"


async def test_what_never_arrived_is_not_ours(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the request got lost or its answer, only the file itself says; where that cannot be asked either, the first error stays."""

    def lost(path: str, data: bytes) -> bool:
        raise OSError(errno.ETIMEDOUT, "no answer")

    def refuse(path: str) -> bytes:
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(any_store._backend, "create", lost)
    with pytest.raises(OSError, match="no answer"):
        await any_store.create("claim", b"mine")
    await any_store.write("claim", b"mine")
    assert await any_store.create("claim", b"mine") is True
    monkeypatch.setattr(any_store._backend, "read", refuse)
    with pytest.raises(OSError, match="no answer"):
        await any_store.create("claim", b"mine")


async def test_a_repeated_call_meets_its_own_file(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that repeats a call on its own is told that the file is there: its own bytes are known again, another's are not."""
    create = any_store._backend.create

    def repeated(path: str, data: bytes) -> bool:
        create(path, data)
        return create(path, data)

    monkeypatch.setattr(any_store._backend, "create", repeated)
    assert await any_store.create("claim", b"mine") is True
    assert await any_store.create("claim", b"other") is False
    assert await any_store.read("claim") == b"mine"


async def test_a_store_that_keeps_two_apart_is_proved(any_store: Store) -> None:
    """Nothing of the proof stays, and it can be given again."""
    for _ in range(2):
        await any_store.prove("journal/proofs/1")
    assert await any_store.list("journal/proofs") == []


async def test_a_store_that_overwrites_is_refused(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it created a file which was there already, as an object store does that knows no conditional write."""
    backend = any_store._backend

    def overwrite(path: str, data: bytes) -> bool:
        backend.write(path, data)
        return True

    monkeypatch.setattr(backend, "create", overwrite)
    with pytest.raises(OSError, match="wrote over a file that it was to create, so two runs could buy the same job") as caught:
        await any_store.prove("journal/proofs/1")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTSUP, any_store.url)
    assert await any_store.list("journal/proofs") == []


async def test_a_store_that_does_not_list_is_refused(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list is stale or empty, so the latest revision of an entry would not be seen."""

    def nothing(path: str) -> list[str]:
        return []

    with monkeypatch.context() as patched:
        patched.setattr(any_store._backend, "names", nothing)
        with pytest.raises(OSError, match="did not keep or list a file that was created") as caught:
            await any_store.prove("journal/proofs/1")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTSUP, any_store.url)
    assert await any_store.list("journal/proofs") == []
