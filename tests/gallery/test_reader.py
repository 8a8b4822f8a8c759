"""What a gallery knows of a journal: all of it, only what changed is read again, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.gallery.entries import digest_of, kept, place, submitted, uncertain

from prefect_happyhorse.engine.journal.index import contents
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.local import LocalFolder
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gallery.reader import JournalReader


def shown(reader: JournalReader) -> list[str]:
    return [line.digest for line in reader.snapshot.lines]


def digests(*names: object) -> list[str]:
    return [digest_of(name) for name in names]


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the entries that were read."""
    found: list[str] = []
    real = Journal.read_all

    def noted(self: Journal, revisions: Mapping[str, int]) -> Any:
        found.extend(revisions)
        return real(self, revisions)

    monkeypatch.setattr(Journal, "read_all", noted)
    return found


async def test_only_what_changed_is_read_again(folder: Path, reader: JournalReader, read: list[str]) -> None:
    """New ones and new revisions; one that is gone goes."""
    place(folder, submitted(1), submitted(2, at=1), uncertain(3, at=2))
    await reader.refresh()
    assert shown(reader) == digests(3, 2, 1)
    version = reader.snapshot.version
    read.clear()
    await reader.refresh()
    assert (read, reader.snapshot.version) == ([], version)
    place(folder, kept(folder, 2, at=1, revision=2), submitted(4, at=3))
    (gone,) = folder.glob(f"journal/??/{digest_of(1)}.1.json")
    gone.unlink()
    await reader.refresh()
    assert sorted(read) == sorted(digests(2, 4))
    assert shown(reader) == digests(4, 3, 2)
    assert [line.state for line in reader.snapshot.lines] == ["submitted", "uncertain", "kept"]
    assert reader.snapshot.version != version


async def test_what_the_index_says_is_not_read(folder: Path, reader: JournalReader, read: list[str]) -> None:
    """At the first look: closed entries, and open ones that have a job."""
    place(folder, kept(folder, 1), submitted(2, at=1), uncertain(3, at=2))
    await contents(Journal(Store(str(folder))))
    read.clear()
    await reader.refresh()
    assert (read, shown(reader)) == (digests(3), digests(3, 2, 1))


async def test_nothing_is_written(folder: Path, reader: JournalReader) -> None:
    """Neither an index, nor what waits in the spool, nor anything else."""
    place(folder, kept(folder, 1), uncertain(2))
    await reader.journal.spool.put(submitted(3).model_dump_json())
    before = files(folder.parent)
    await reader.refresh()
    await reader.read_details()
    assert await reader.entry(digest_of(1))
    assert files(folder.parent) == before


async def test_a_job_that_its_store_would_not_take_is_shown(folder: Path, reader: JournalReader) -> None:
    """In place of what the store says of it."""
    place(folder, uncertain(1))
    await reader.journal.spool.put(submitted(1).model_dump_json())
    await reader.journal.spool.put(submitted(2, at=1).model_dump_json())
    await reader.refresh()
    assert [(line.digest, line.state) for line in reader.snapshot.lines] == [(digest_of(2), "submitted"), (digest_of(1), "submitted")]
    entry = await reader.entry(digest_of(1))
    assert entry is not None
    assert (entry.state, entry.revision) == ("submitted", 0)
    await reader.journal.spool.remove(digest_of(2))
    await reader.refresh()
    assert shown(reader) == digests(1)


async def test_what_cannot_be_read_is_a_problem_of_its_own(folder: Path, reader: JournalReader) -> None:
    """It says which file, and what to do; once it is mended it is a job."""
    place(folder, submitted(1))
    bad = folder / "journal" / digest_of(2)[:2] / f"{digest_of(2)}.1.json"
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_text("{broken")
    (reader.journal.spool.folder).mkdir(parents=True)
    (reader.journal.spool.folder / f"{digest_of(3)}.json").write_text("{}")
    await reader.refresh()
    assert shown(reader) == digests(1)
    first, second = sorted(reader.snapshot.problems, key=lambda text: digest_of(2) not in text)
    assert f"{bad.name} cannot be read" in first
    assert f"happyhorse jobs forget {bad.name}" in first
    assert f"{digest_of(3)}.json cannot be read" in second
    bad.unlink()
    place(folder, submitted(2, at=1))
    await reader.refresh()
    assert (shown(reader), len(reader.snapshot.problems)) == (digests(2, 1), 1)


async def test_a_store_that_may_not_be_listed(folder: Path, reader: JournalReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so and what it takes; what was known before stays, and it is looked again."""
    place(folder, submitted(1))
    with monkeypatch.context() as forbidden:

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Access Denied")

        forbidden.setattr(LocalFolder, "folders", refuse)
        await reader.refresh()
        (problem,) = reader.snapshot.problems
        assert problem.startswith(f"The journal of file://{folder} cannot be listed: Access Denied. Reading it takes the right to list")
        assert (reader.snapshot.lines, reader.snapshot.whole) == ([], True)
    await reader.refresh()
    assert (shown(reader), reader.snapshot.problems) == (digests(1), [])
    monkeypatch.setattr(LocalFolder, "folders", refuse)
    await reader.refresh()
    assert (shown(reader), reader.snapshot.problems) == (digests(1), [problem])


async def test_a_journal_that_is_a_file(folder: Path, reader: JournalReader) -> None:
    """As any folder that cannot be listed."""
    folder.mkdir()
    (folder / "journal").write_text("no folder")
    await reader.refresh()
    assert "cannot be listed: Not a directory" in reader.snapshot.problems[0]


async def test_a_journal_of_an_earlier_form(folder: Path, reader: JournalReader) -> None:
    """It is refused with its reason, as everywhere else."""
    (folder / "journal").mkdir(parents=True)
    (folder / "journal" / f"{digest_of(1)}.json").write_text("{}")
    await reader.refresh()
    assert "unreleased version" in reader.snapshot.problems[0]


async def test_it_shows_something_before_all_is_read(folder: Path, reader: JournalReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many of how many, and the newest of them first; in the end all."""
    monkeypatch.setattr("prefect_happyhorse.gallery.reader._AT_FIRST", 4)
    monkeypatch.setattr("prefect_happyhorse.gallery.reader._PROGRESS_S", 0.0)
    monkeypatch.setattr("prefect_happyhorse.gallery.reader._PAUSE_FACTOR", 0.0)
    place(folder, *(kept(folder, number, at=number) for number in range(40)))
    await contents(Journal(Store(str(folder))))
    seen: list[tuple[int, int, bool]] = []
    real = reader._publish

    def noted(problems: list[str], total: int, *, whole: bool) -> None:
        real(problems, total, whole=whole)
        seen.append((len(reader.snapshot.lines), reader.snapshot.total, whole))
        assert shown(reader) == sorted(shown(reader), key=lambda digest: -[*digests(*range(40))].index(digest))

    monkeypatch.setattr(reader, "_publish", noted)
    await reader.refresh()
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert (seen[0][1:], seen[-1]) == ((40, False), (40, 40, True))


async def test_it_reads_in_a_thread_of_its_own_while_somebody_looks(folder: Path, reader: JournalReader) -> None:
    """The first look begins by itself; the end comes whatever is under way."""
    place(folder, *(submitted(number) for number in range(3)))
    async with reader.running():
        assert reader._looking is not None
        await reader.first_look(at_most_s=60)
        await asyncio.wrap_future(reader._looking)
        assert len(reader.snapshot.lines) == 3
        reader.details.clear()
        reader.want_details()
        assert reader._detailing is not None
        await asyncio.wrap_future(reader._detailing)
        assert len(reader.details) == 3


async def test_no_more_entries_are_kept_than_a_few_pages_need(folder: Path, reader: JournalReader) -> None:
    """However many pages are looked at."""
    place(folder, *(submitted(number, at=number) for number in range(700)))
    await reader.refresh()
    for start in range(0, 700, 60):
        assert len(await reader.entries(reader.snapshot.lines[start : start + 60])) == min(60, 700 - start)
    assert len(reader._entries) <= 512
