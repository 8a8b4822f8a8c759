"""The journal as a whole: every entry is found, and nothing else that lies beside them is taken for one."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.engine.journal.test_entry import JOB

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.journal.index import Index, open_entries
from prefect_happyhorse.engine.journal.journal import Failure, Journal, JournalEntry, LeaseOwner, Listing
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
    assert (await journal.revisions(), await journal.entries(), await journal.read("d")) == ({}, Listing([], []), None)


async def test_every_entry_is_found_oldest_first(journal: Journal) -> None:
    """However many there are; those that were begun in the same moment come by their digest."""
    written = [entry(f"{number:03}", NOON - timedelta(seconds=number // 2)) for number in range(300)]
    written = [await created(journal, one) for one in written]
    assert await journal.entries() == Listing(sorted(written, key=lambda one: (one.begun_at, one.digest)), [])
    assert await journal.revisions() == {one.digest: 1 for one in written}


async def created(journal: Journal, entry: JournalEntry) -> JournalEntry:
    written = await journal.create(entry)
    assert written is not None
    return written


async def test_what_lies_beside_the_entries_is_none(journal: Journal) -> None:
    """Leases, durations and the index lie in folders beside them, a person may leave notes, and a write that was killed leaves a draft."""
    written = await created(journal, entry("d1" * 32))
    for path in (
        f"leases/{'d1' * 32}.2.json",
        "durations/happyhorse.default.json",
        "durations/deep/x.json",
        "index/d1.json",
        "unreadable/d3.1.json",
        "d1/notes.txt",
        f"d1/.{'d2' * 32}.1.json.x.tmp",
        f"d1/{'d3' * 32}.1.json.bak",
        f"d1/{'d3' * 32}.json",
        f"d1/{'d3' * 32}.0.json",
    ):
        await journal.store.write(f"journal/{path}", b"no entry")
    await journal.store.write("d4.1.json", b"no entry")
    assert await journal.revisions() == {written.digest: 1}
    assert await journal.entries() == Listing([written], [])


ANYTHING = [b"", b"{", b"[]", b"\xff", b'{"digest": "d150"}', b"null", b"[" * 100_000, b'{"state": ' * 5_000, b"1" * 6_000, b"\x00" * 10]


@pytest.mark.parametrize("content", ANYTHING)
async def test_one_broken_entry_is_named_and_stops_no_other(content: bytes, journal: Journal) -> None:
    """It may stand for a paid job, so a list names it; and nothing is bought under it."""
    written = [await created(journal, entry(f"d{number}")) for number in range(20)]
    await journal.store.write("journal/d1/d15.2.json", content)
    listing = await journal.entries()
    assert [one.digest for one in listing.entries] == sorted(one.digest for one in written if one.digest != "d15")
    (unreadable,) = listing.unreadable
    assert unreadable.file.endswith("journal/d1/d15.2.json")
    assert unreadable.error.digest == "d15"
    assert "happyhorse jobs forget d15.2.json" in str(unreadable.error)
    assert await journal.read("d14") == written[14]
    with pytest.raises(SubmissionUncertain, match=r"d15\.2\.json cannot be read"):
        await journal.read("d15")
    assert [one.file for one in (await open_entries(journal)).unreadable] == [unreadable.file]


async def test_a_broken_file_is_put_away_by_its_name(journal: Journal) -> None:
    """Nothing of it is lost, and the request can be bought again; no other file can be named so."""
    await journal.store.write("journal/d1/d15.2.json", b"{")
    assert await journal.put_away("d15.3.json") is None
    assert await journal.put_away("../../d15.2.json") is None
    away = await journal.put_away("d15.2.json")
    assert away == journal.store.uri("journal/unreadable/d15.2.json")
    assert await journal.store.read("journal/unreadable/d15.2.json") == b"{"
    assert await journal.entries() == Listing([], [])
    await created(journal, entry("d15"))


async def test_a_copied_entry_is_named(journal: Journal) -> None:
    """A file that a person copied or renamed speaks of another request, and must not be taken for one under its own name."""
    written = await created(journal, entry("d1"))
    await journal.store.write("journal/d2/d2.1.json", await journal.store.read("journal/d1/d1.1.json"))
    listing = await journal.entries()
    assert listing.entries == [written]
    assert "is of another request, d1" in str(listing.unreadable[0].error)


async def test_an_entry_of_a_later_version_is_no_entry_that_can_be_ignored(journal: Journal) -> None:
    """What it says about money is not known here."""
    text = entry("d1").model_dump_json(exclude_none=True).replace('"version":2', '"version":3')
    assert '"version":3' in text
    await journal.store.write("journal/d1/d1.1.json", text.encode())
    with pytest.raises(SubmissionUncertain, match="d1"):
        await journal.read("d1")


async def test_what_only_a_later_version_knows_is_kept_and_written_back(journal: Journal) -> None:
    """At the top and deep inside, through every change."""
    await created(journal, entry("d1"))
    facts = json.loads(await journal.store.read("journal/d1/d1.1.json"))
    facts["mood"] = {"good": True}
    facts["request"]["camera"] = "low"
    facts["owner"]["threads"] = [1, 2]
    await journal.store.write("journal/d1/d1.1.json", json.dumps(facts).encode())
    another = Journal(journal.store)
    read = await another.read("d1")
    assert read is not None
    await another.accept(read, JOB.model_copy(update={"digest": "d1"}))
    later = json.loads(await journal.store.read("journal/d1/d1.2.json"))
    assert (later["mood"], later["request"]["camera"], later["owner"]["threads"]) == ({"good": True}, "low", [1, 2])
    assert later["job"]["task_id"] == JOB.task_id


@pytest.mark.parametrize("name", ["0" * 64, "a1" * 32])
async def test_a_journal_of_the_earlier_form_is_named_and_nothing_is_bought_beside_it(name: str, journal: Journal) -> None:
    """Nothing was released, so it is not read; but it may stand for paid jobs, so it is never taken for nothing at all."""
    await journal.store.write(f"journal/{name}.json", b'{"version": 1, "state": "submitted"}')
    with pytest.raises(SubmissionUncertain, match="unreleased version") as caught:
        await Shared().prove(journal)
    assert f"journal/{name}.json" in str(caught.value)
    assert caught.value.money == "may be spent"
    assert "Move these files away" in str(caught.value)


async def test_an_impossible_entry_is_not_written(journal: Journal) -> None:
    """However it came about: a copy of an entry is not checked when it is made."""
    written = await created(journal, entry("d1"))
    with pytest.raises(ValueError, match="must hold asset, job, result"):
        await journal.create(written.model_copy(update={"state": "kept"}))
    assert await journal.read("d1") == written


async def test_of_many_who_change_an_entry_none_is_lost(journal: Journal) -> None:
    """Each reads, changes and writes at the same time as the others; every revision is somebody's, and the earlier ones go at the end."""
    await created(journal, entry("d1"))

    def add(number: int) -> Callable[[JournalEntry | None], JournalEntry | None]:
        return lambda latest: None if latest is None else latest.model_copy(update={"aside": (*latest.aside, str(number))})

    await asyncio.gather(*(Journal(journal.store).update("d1", add(number)) for number in range(20)))
    latest = await journal.read("d1")
    assert latest is not None
    assert (sorted(latest.aside, key=int), latest.revision) == ([str(number) for number in range(20)], 21)
    await created(journal, latest.becoming("released"))
    assert await journal.store.list("journal/d1") == ["d1.1.json", "d1.22.json"]


async def test_a_revision_that_stayed_counts_no_more(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote the next one died before it could remove the one before."""

    async def refuse(store: Store, path: str) -> None:
        raise OSError(errno.EIO, "not now", path)

    monkeypatch.setattr(Store, "delete", refuse)
    first = await created(journal, entry("d1"))
    second = await created(journal, first.becoming("uncertain"))
    assert await journal.store.list("journal/d1") == ["d1.1.json", "d1.2.json"]
    assert await journal.read("d1") == second
    assert await journal.entries() == Listing([second], [])
    assert await journal.create(first.becoming("released")) is None


async def test_an_entry_that_changes_while_they_are_read_is_read_anew(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else closes it between the list of names and the reading: none is left out."""
    for digest in ("d1", "d2", "d3"):
        await created(journal, entry(digest))
    read_all = Store.read_all

    async def late(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        found = await journal.read("d2")
        assert found is not None
        await created(journal, found.becoming("released"))
        async for one in read_all(store, paths):
            yield one

    monkeypatch.setattr(Store, "read_all", late)
    assert [(one.digest, one.state) for one in (await journal.entries()).entries] == [
        ("d1", "intent"),
        ("d2", "released"),
        ("d3", "intent"),
    ]


async def test_open_jobs_are_listed_without_reading_closed_ones(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known to be closed is not read again, by whomever; what is changed is."""
    closed = [await created(journal, (await created(journal, entry(f"d{number}"))).becoming("released")) for number in range(9)]
    open_one = await created(journal, entry("e1"))
    assert (await open_entries(journal)).entries == [open_one]
    read: list[str] = []
    read_all = Store.read_all

    async def counted(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        read.extend(path for path in paths if not path.startswith("journal/index/"))
        async for one in read_all(store, paths):
            yield one

    monkeypatch.setattr(Store, "read_all", counted)
    assert (await open_entries(Journal(journal.store))).entries == [open_one]
    assert read == ["journal/e1/e1.1.json"]
    again = await created(journal, closed[3].becoming("intent"))
    assert (await open_entries(journal)).entries == [again, open_one]


async def test_only_folders_of_entries_are_listed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thumbnails are as many as jobs."""
    await created(journal, entry("d1"))
    for path in ("thumbnails/a.jpg", "durations/horse.json", "index/d1.json", "unreadable/d9.1.json", "d1/notes.txt"):
        await journal.store.write(f"journal/{path}", b"[]")
    listed: list[str] = []
    list_all = Store.list_all

    async def noted(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, list[str]], None]:
        listed.extend(paths)
        async for one in list_all(store, paths):
            yield one

    monkeypatch.setattr(Store, "list_all", noted)
    assert await journal.revisions() == {"d1": 1}
    assert listed == ["journal/d1"]


async def test_what_killed_processes_left_goes_once_an_entry_is_closed(journal: Journal) -> None:
    """Earlier revisions and leases of a closed entry go, whoever closed it; those of an open one stay, and so does a file of no entry."""
    store = journal.store
    for digest in ("d1", "d2"):
        intent = await created(journal, entry(digest))
        assert await journal.acquire(intent) is not None
    closed = await created(journal, (await created(journal, entry("d3"))).becoming("released"))
    assert await store.create(journal.path("d3", 1), b"left")
    for name in ("d1.1", "d1.2", "d3.1", "d3.2", "d4.1"):
        await store.write(f"journal/leases/{name}.json", b"renewed")
    await store.write("journal/leases/probe-1", b"")
    opened = await open_entries(journal)
    assert await store.list("journal/d3") == ["d3.1.json", "d3.2.json"]
    assert await open_entries(Journal(store), tidy=True) == opened
    assert [one.digest for one in opened.entries] == ["d1", "d2"]
    assert [await store.list(f"journal/{digest}") for digest in ("d1", "d2", "d3")] == [
        ["d1.1.json", "d1.2.json"],
        ["d2.1.json", "d2.2.json"],
        ["d3.2.json"],
    ]
    assert await store.list("journal/leases") == ["d1.1.json", "d1.2.json", "d3.2.json", "d4.1.json", "probe-1"]
    assert await journal.read("d3") == closed


@pytest.mark.parametrize("looked_between", [True, False])
async def test_what_is_bought_in_the_place_of_a_file_that_was_moved_away_is_open(looked_between: bool, journal: Journal) -> None:
    """A closed entry stands in the index, is damaged and moved away: its revisions come again, and are of another job."""
    closed = await created(journal, (await created(journal, entry("d1"))).becoming("released"))
    assert (await open_entries(journal)).entries == []
    await journal.store.write(journal.path(closed.digest, closed.revision), b"damaged")
    assert await journal.put_away("d1.2.json") is not None
    if looked_between:
        assert (await open_entries(journal)).entries == []
    again = await created(journal, (await created(journal, entry("d1"))).becoming("uncertain", failure=Failure(message="lost")))
    assert again.revision == closed.revision
    assert (await open_entries(Journal(journal.store))).entries == [again]


async def test_the_index_forgets_an_entry_that_is_gone(journal: Journal) -> None:
    """Also where somebody removed its file by hand, and one who has read the index before sees it."""
    index = Index(journal)
    closed = await created(journal, (await created(journal, entry("d1"))).becoming("released"))
    other = await created(journal, (await created(journal, entry("d1-other"))).becoming("released"))
    await open_entries(journal)
    revisions = await journal.revisions()
    await index.load(revisions)
    assert index.get("d1", closed.revision) is not None
    await journal.store.delete(journal.path("d1", closed.revision))
    await index.load(await journal.revisions())
    assert index.get("d1", closed.revision) is None
    await index.save(await journal.revisions())
    anew = Index(journal)
    await anew.load(revisions)
    assert anew.get("d1", closed.revision) is None
    assert anew.get("d1-other", other.revision) is not None


@pytest.mark.parametrize("content", ANYTHING)
async def test_a_broken_index_is_made_anew(content: bytes, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """It is told by its name, and nothing depends on it."""
    open_one = await created(journal, entry("d1"))
    await created(journal, (await created(journal, entry("d2"))).becoming("released"))
    await journal.store.write("journal/index/d1.json", content)
    await journal.store.write("journal/index/d2.json", content)
    for _ in range(2):
        assert (await open_entries(journal)).entries == [open_one]
    # A list of nothing is an index, of nothing.
    assert caplog.text.count("journal/index/d2.json cannot be read") == (content != b"[]")
