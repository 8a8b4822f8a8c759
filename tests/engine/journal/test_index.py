"""The index of a journal: whatever becomes of its files, and whoever writes them, a look shows what the entries say."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.journal.test_budget import cny
from tests.engine.journal.test_budget_tracker import calls, entries_read, intent
from tests.engine.journal.test_entry import EVERY_FACT, JOB
from tests.engine.journal.test_journal import ANYTHING, created, entry

from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.engine.journal.budget import BudgetTracker
from prefect_happyhorse.engine.journal.index import Index, Line, contents, open_entries
from prefect_happyhorse.engine.journal.journal import Failure, Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["calls"]


@pytest.fixture
def journal() -> Journal:
    return Journal(Store(f"memory://{os.urandom(6).hex()}"))


async def submitted(journal: Journal, digest: str) -> JournalEntry:
    first = await created(journal, entry(digest))
    return await created(journal, first.becoming("submitted", job=JOB.model_copy(update={"digest": digest})))


async def test_an_open_entry_that_has_a_job_is_read_once(journal: Journal, calls: Counter[str]) -> None:
    """By whoever looks next, until it is written anew; one without a job is read by everybody, since more may hang on it."""
    one, other = await submitted(journal, "a1"), await submitted(journal, "b1")
    unsent = await created(journal, entry("a2"))
    assert (await open_entries(Journal(journal.store))).entries == [one, unsent, other]
    calls.clear()
    found = await contents(Journal(journal.store), read_only=True)
    assert (found.open_entries, entries_read(calls)) == ([one, unsent, other], {journal.path("a2", 1): 1})
    assert sorted(found.lines) == sorted(map(Line.of, (one, unsent, other)))
    later = await created(journal, one.becoming("submitted"))
    calls.clear()
    assert (await open_entries(Journal(journal.store))).entries == [later, unsent, other]
    assert entries_read(calls) == {journal.path("a1", 3): 1, journal.path("a2", 1): 1}
    await created(journal, later.becoming("failed", failure=Failure(message="no")))
    assert (await open_entries(Journal(journal.store))).entries == [unsent, other]
    assert await journal.store.read("journal/index/a.open.json") == b"[]"


async def test_an_open_entry_of_which_a_part_is_kept_is_read_itself(journal: Journal, calls: Counter[str]) -> None:
    """Where its files lie is told by the place of the entry."""
    job = JOB.model_copy(update={"digest": "a1"})
    facts = {name: EVERY_FACT[name].model_copy(update={"job": job}) for name in ("result", "asset")}
    part = await created(journal, (await submitted(journal, "a1")).becoming("succeeded", **facts))
    for _ in range(2):
        calls.clear()
        await open_entries(Journal(journal.store))
        assert entries_read(calls) == {journal.path("a1", part.revision): 1}


async def test_what_only_a_later_version_knows_comes_out_of_the_index(journal: Journal, calls: Counter[str]) -> None:
    """As out of the entry itself, and is written back with its next change."""
    path = journal.path("a1", (await submitted(journal, "a1")).revision)
    facts = json.loads(await journal.store.read(path))
    facts["mood"], facts["job"]["colour"] = {"good": True}, "white"
    await journal.store.write(path, json.dumps(facts).encode())
    calls.clear()
    read = [(await open_entries(Journal(journal.store))).entries for _ in range(2)]
    assert entries_read(calls) == {path: 1}
    assert read[0] == read[1] == [await Journal(journal.store).read("a1")]
    later = await created(journal, read[1][0].becoming("submitted"))
    written = json.loads(await journal.store.read(journal.path("a1", later.revision)))
    assert (written["mood"], written["job"]["colour"]) == ({"good": True}, "white")


async def test_open_entries_stand_in_no_file_of_closed_ones(journal: Journal) -> None:
    """An earlier version, and whoever sees a line there, takes an entry for closed; and its revisions stay when others' are removed."""
    one = await submitted(journal, "a1")
    closed = await created(journal, (await created(journal, entry("a2"))).becoming("released"))
    for _ in range(2):
        assert (await open_entries(Journal(journal.store), tidy=True)).entries == [one]
        assert [line[:2] for line in json.loads(await journal.store.read("journal/index/a.json"))] == [["a2", closed.revision]]
        closed = await created(journal, closed.becoming("released"))
    assert await journal.store.list("journal/a1") == ["a1.1.json", "a1.2.json"]


@pytest.mark.parametrize("content", ANYTHING)
async def test_broken_open_entries_are_read_anew(
    content: bytes, journal: Journal, calls: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    """And written anew, so that the next look reads none, and tells no more of what it cannot read."""
    one = await submitted(journal, "a1")
    await created(journal, entry("b1"))
    await open_entries(journal)
    for part in "ab":
        await journal.store.write(f"journal/index/{part}.open.json", content)
    for reads in (1, 0):
        calls.clear()
        assert (await open_entries(Journal(journal.store))).entries[0] == one
        assert entries_read(calls).get(journal.path("a1", 2), 0) == reads
    assert caplog.text.count(".open.json cannot be read") == (0 if content == b"[]" else 2)


async def test_an_index_of_the_earlier_form_is_read_and_replaced(journal: Journal, calls: Counter[str]) -> None:
    """It had a file for each two first characters; who may write nothing leaves it."""
    one = await submitted(journal, "a1")
    closed = [await created(journal, (await created(journal, entry(digest))).becoming("released")) for digest in ("a2", "a3", "b1")]
    await open_entries(journal)
    for part in "ab":
        for line in json.loads(await journal.store.read(f"journal/index/{part}.json")):
            await journal.store.write(f"journal/index/{line[0]}.json", json.dumps([line]).encode())
        await journal.store.delete(f"journal/index/{part}.json")
    earlier = ["a.open.json", "a2.json", "a3.json", "b1.json"]
    for read_only, left in ((True, earlier), (False, ["a.json", "a.open.json", "b.json"]), (False, ["a.json", "a.open.json", "b.json"])):
        calls.clear()
        found = await contents(Journal(journal.store), read_only=read_only)
        assert (found.open_entries, entries_read(calls)) == ([one], {})
        assert sorted(found.lines) == sorted(map(Line.of, (one, *closed)))
        assert await journal.store.list("journal/index") == left


async def test_of_two_who_write_an_index_at_once_the_later_one_wins_and_nothing_is_wrong(journal: Journal, calls: Counter[str]) -> None:
    """What the earlier one wrote is lost, and read anew by the next."""
    one, other = await submitted(journal, "a1"), await submitted(journal, "a2")
    earlier, later = Index(journal), Index(journal)
    revisions = await journal.revisions()
    await asyncio.gather(earlier.load(revisions), later.load(revisions))
    earlier.add(one)
    later.add(other)
    await earlier.save(revisions)
    closed = await created(journal, one.becoming("failed", failure=Failure(message="no")))
    await later.save(revisions)
    calls.clear()
    found = await contents(Journal(journal.store))
    assert (found.open_entries, sorted(found.lines)) == ([other], sorted(map(Line.of, (closed, other))))
    assert entries_read(calls) == {journal.path("a1", 3): 1}
    await asyncio.gather(*(contents(Journal(journal.store)) for _ in range(5)))
    calls.clear()
    assert (await contents(Journal(journal.store))) == found
    assert entries_read(calls) == {}


async def test_a_damaged_entry_that_is_put_away_leaves_the_index(journal: Journal) -> None:
    """What stood there is no longer shown, whoever wrote the index when it was whole, and in whatever form."""
    one = await submitted(journal, "a1")
    await open_entries(journal)
    await journal.store.write("journal/index/a1.json", b"[]")
    await journal.store.write("journal/index/b1.json", b"[]")
    await journal.store.write(journal.path("a1", one.revision), b"{")
    assert await journal.put_away("a1.2.json") is not None
    assert await journal.store.list("journal/index") == ["b1.json"]
    (found,) = (await open_entries(Journal(journal.store))).entries
    assert (found.state, found.revision) == ("intent", 3)


async def test_a_budget_reads_no_open_entry_that_did_not_change(store: Store, calls: Counter[str]) -> None:
    """At its first look, which also writes the index; later ones hold lines alone, and leave what the index says of open entries."""
    journal = Journal(store)
    bought = [
        await journal.create(intent(number, state="submitted", job=JOB.model_copy(update={"digest": intent(number).digest})))
        for number in (1, 2, 5)
    ]
    tracker = BudgetTracker(cny("5"), journal)
    assert await tracker.remaining() == Decimal(2)
    calls.clear()
    assert await BudgetTracker(cny("5"), Journal(store)).remaining() == Decimal(2)
    assert entries_read(calls) == {}
    assert bought[0] is not None
    assert bought[1] is not None
    assert await journal.create(bought[0].becoming("failed", failure=Failure(message="no"))) is not None
    assert await journal.create(bought[1].becoming("submitted")) is not None
    assert await tracker.remaining() == Decimal(2)
    calls.clear()
    assert sorted(one.digest for one in (await open_entries(Journal(store))).entries) == [intent(2).digest, intent(5).digest]
    assert entries_read(calls) == {journal.path(intent(2).digest, 2): 1}
    with pytest.raises(BudgetExceeded):
        await BudgetTracker(cny("5"), Journal(store)).admit(intent(4, "2.01"))


_STEPS = st.one_of(
    st.tuples(st.sampled_from(["submit", "see", "fail", "forget"]), st.sampled_from(["a1", "a2", "b1"])),
    st.tuples(st.sampled_from(["look", "tidy", "budget", "copy", "restore", "garble", "lose"]), st.sampled_from(["", "a", "b"])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_STEPS, max_size=25))
def test_whatever_becomes_of_the_index_a_look_shows_what_the_entries_say(steps: list[tuple[str, str]]) -> None:
    """Whole, lost, garbled, or as it was before, as where another process wrote it last; written by looks and budgets."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_walk(Path(folder), steps))


async def _walk(folder: Path, steps: list[tuple[str, str]]) -> None:
    journal, copies = Journal(Store(str(folder))), dict[str, bytes]()
    tracker = BudgetTracker(cny("99"), journal)
    for step, which in steps:
        files = list(folder.glob(f"journal/index/{which}*"))
        if step in {"submit", "see", "fail", "forget"}:
            await _change(journal, step, which)
        elif step in {"look", "tidy"}:
            await contents(Journal(journal.store), tidy=step == "tidy")
        elif step == "budget":
            await tracker.admit(intent(1, "0"))
        elif step == "copy":
            copies = {file.name: file.read_bytes() for file in files}
        elif step == "restore":
            for name, content in copies.items():
                (folder / "journal" / "index" / name).write_bytes(content)
        elif step in {"garble", "lose"}:
            for file in files:
                file.write_bytes(file.read_bytes()[:-9]) if step == "garble" else file.unlink()
        entries = (await journal.entries()).entries
        found = await contents(Journal(journal.store), read_only=True)
        assert found.open_entries == [one for one in entries if one.is_open]
        assert (sorted(found.lines), found.unreadable) == (sorted(map(Line.of, entries)), [])


async def _change(journal: Journal, step: str, digest: str) -> None:
    job = JOB.model_copy(update={"digest": digest})

    def change(latest: JournalEntry | None) -> JournalEntry | None:
        if latest is None:
            return intent(0).model_copy(update={"digest": digest})
        if step == "submit":
            return latest.becoming("submitted", job=job) if latest.may_become("submitted") else None
        if step == "see":
            return latest.becoming(latest.state)
        if step == "fail":
            return latest.becoming("failed", failure=Failure(message="no")) if latest.may_become("failed") else None
        return latest.becoming("intent" if latest.state == "forgotten" else "forgotten")

    await Journal(journal.store).update(digest, change)
