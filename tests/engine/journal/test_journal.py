"""The journal as a whole: every entry is found, and nothing else that lies beside them is taken for one."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


@pytest.fixture(params=["local", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return Journal(Store(str(tmp_path / "outputs") if request.param == "local" else f"memory://{os.urandom(6).hex()}"))


def entry(digest: str, at: datetime = NOON, **changes: object) -> JournalEntry:
    begun = JournalEntry(
        digest=digest,
        state="intent",
        gateway="happyhorse",
        account="default",
        take=1,
        request=TextToImage(model="gpt-image-2", prompt="A horse"),
        owner=LeaseOwner(at=at),
    )
    return begun.model_copy(update=changes)


async def test_a_journal_that_nobody_wrote_to_is_empty(journal: Journal) -> None:
    """Before the first job there is not even a folder."""
    assert (await journal.digests(), await journal.entries(), await journal.read("d")) == ([], [], None)


async def test_every_entry_is_found_oldest_first(journal: Journal) -> None:
    """However many there are; those that were begun in the same moment come by their digest."""
    written = [entry(f"{number:03}", NOON - timedelta(seconds=number // 2)) for number in range(300)]
    for one in written:
        await journal.write(one)
    assert await journal.entries() == sorted(written, key=lambda one: (one.begun_at, one.digest))
    assert sorted(await journal.digests()) == [one.digest for one in written]


async def test_what_lies_beside_the_entries_is_none(journal: Journal) -> None:
    """Leases and durations lie in folders below, a person may leave notes, and a write that was killed leaves a draft."""
    written = await journal.write(entry("d1"))
    for path in (
        "leases/d1.2.json",
        "durations/happyhorse.default.json",
        "durations/deep/x.json",
        "notes.txt",
        ".d2.json.x.tmp",
        "d3.json.bak",
    ):
        await journal.store.write(f"journal/{path}", b"no entry")
    await journal.store.write("d4.json", b"no entry")
    assert await journal.digests() == ["d1"]
    assert await journal.entries() == [written]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"digest": "d150"}', b"null"])
async def test_one_broken_entry_is_named(content: bytes, journal: Journal) -> None:
    """It may stand for a paid job, so that a list without it would be a lie; the others can still be read one by one."""
    written = [await journal.write(entry(f"d{number}")) for number in range(200)]
    await journal.store.write("journal/d150.json", content)
    with pytest.raises(SubmissionUncertain, match=r"journal/d150\.json cannot be read") as caught:
        await journal.entries()
    assert caught.value.digest == "d150"
    assert "Mend the file" in (caught.value.advice or "")
    assert await journal.read("d149") == written[149]
    with pytest.raises(SubmissionUncertain, match="d150"):
        await journal.read("d150")


async def test_an_entry_of_a_later_version_is_no_entry_that_can_be_ignored(journal: Journal) -> None:
    """What it says about money is not known here."""
    text = entry("d1").model_dump_json(exclude_none=True).replace('"version":2', '"version":3')
    assert '"version":3' in text
    await journal.store.write("journal/d1.json", text.encode())
    with pytest.raises(SubmissionUncertain, match="d1"):
        await journal.entries()


@pytest.mark.parametrize(
    "content",
    [
        '{"version": 1, "digest": "d1", "state": "submitted", "intent": {"host": "h", "turn": 1}, "doubles": []}',
        '{"version": 1, "digest": "d1", "state": "kept"}',
    ],
)
async def test_an_entry_of_the_first_version_is_named_and_nothing_is_bought_under_it(content: str, journal: Journal) -> None:
    """Nothing was released, so it is not read; but it may stand for a paid job, so it is never taken for nothing at all."""
    await journal.store.write("journal/d1.json", content.encode())
    for reading in (journal.read("d1"), journal.entries()):
        with pytest.raises(SubmissionUncertain, match=r"journal/d1\.json was written by an unreleased version") as caught:
            await reading
        assert (caught.value.digest, caught.value.money) == ("d1", "may be spent")
        assert "move it away" in str(caught.value)
    assert not await journal.acquire(entry("d1"))


async def test_an_impossible_entry_is_not_written(journal: Journal) -> None:
    """However it came about: a copy of an entry is not checked when it is made."""
    written = await journal.write(entry("d1"))
    with pytest.raises(ValidationError, match="must hold asset, job, result"):
        await journal.write(written.model_copy(update={"state": "kept"}))
    assert await journal.read("d1") == written


async def test_an_entry_that_goes_while_they_are_read_is_gone(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else forgets a job between the list of names and the reading: the others are listed as ever."""
    for digest in ("d1", "d2", "d3"):
        await journal.write(entry(digest))
    read_all = Store.read_all

    async def late(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        await journal.forget("d2")
        async for found in read_all(store, paths):
            yield found

    monkeypatch.setattr(Store, "read_all", late)
    assert [one.digest for one in await journal.entries()] == ["d1", "d3"]
