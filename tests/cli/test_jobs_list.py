"""`happyhorse jobs list`: what a person sees of the journal, and what of it cannot be read."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.journal import bought, riding, run

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


def test_an_empty_journal_is_no_error(store: Store) -> None:
    """Before the first job there is nothing to list."""
    assert "0 jobs" in run("list").output


def test_jobs_are_listed_and_filtered(sandbox_env: SandboxServer, store: Store) -> None:
    """A line for each, and how many are open; filters add up; JSON is one entry a line."""
    horse = bought(store)
    ride = riding(store)
    assert run("resume", horse.digest[:12]).exit_code == 0
    listed = run("list").output
    for told in (
        horse.digest[:12],
        "kept",
        "submitted",
        "A white [horse]",
        ride.job.task_id if ride.job else "",
        "s ago",
        "2 jobs",
        "1 open; money at risk: 4.5 CNY",
    ):
        assert told in listed
    lines = run("list", "--open", "--json").output.splitlines()
    assert [json.loads(line)["digest"] for line in lines] == [ride.digest]
    assert json.loads(run("list", "--state", "kept", "--gateway", "happyhorse", "--json").output)["digest"] == horse.digest
    assert run("list", "--older-than", "1h", "--json").output == ""
    assert len(run("list", "--younger-than", "1h", "--json").output.splitlines()) == 2
    assert run("list", "--older-than", "soon").exit_code == 2


def begun_one_after_another(store: Store, number: int) -> list[str]:
    """The short digests of jobs, oldest first, whose digests are in the opposite order."""
    entry = bought(store)

    async def write_down() -> list[str]:
        for revision in range(1, entry.revision + 1):
            await store.delete(Journal(store).path(entry.digest, revision))
        digests = [f"{999 - position:012}" for position in range(number)]
        for position, digest in enumerate(digests):
            intent = entry.owner.model_copy(update={"at": entry.owner.at - timedelta(hours=number - position)})
            await Journal(store).create(entry.model_copy(update={"digest": digest, "owner": intent, "revision": 0}))
        return digests

    return asyncio.run(write_down())


def listed(output: str) -> list[str]:
    """The digests in a table, from above."""
    return re.findall(r"\b0{9}\d{3}\b", output)


def test_a_long_list_shows_the_newest(store: Store) -> None:
    """As many as asked for, oldest first; whatever is not shown is counted all the same, and how to see it is said."""
    digests = begun_one_after_another(store, 7)
    few = run("list", "--limit", "3")
    assert (few.exit_code, listed(few.output)[:3]) == (0, digests[-3:])
    assert "7 jobs in" in few.output
    assert "7 open" in few.output
    assert f"4 older ones: the same command with --before {digests[4]}; --limit 0 shows all." in few.output
    for enough in ("0", "7", "8"):
        whole = run("list", "--limit", enough)
        assert listed(whole.output) == digests
        assert "--limit" not in whole.output
    refused = run("list", "--limit", "-1")
    assert (refused.exit_code, "-1 is not in the range" in refused.stderr) == (2, True)


def test_two_hundred_are_shown_unless_more_are_asked_for(store: Store) -> None:
    """JSON is for programs, which get every entry unless they set a limit too; filters come before the counting."""
    digests = begun_one_after_another(store, 203)
    usual = run("list").output
    assert listed(usual)[:200] == digests[3:]
    assert "203 jobs in" in usual
    assert f"3 older ones: the same command with --before {digests[3]}" in usual
    assert listed(run("list", "--limit", "0").output) == digests
    lines = run("list", "--json").output.splitlines()
    assert [json.loads(line)["digest"] for line in lines] == digests
    old = run("list", "--limit", "2", "--older-than", "100h").output
    assert listed(old)[:2] == digests[102:104]
    assert "104 jobs in" in old
    assert f"102 older ones: the same command with --before {digests[102]}" in old


def test_pages_go_back_and_forth(store: Store) -> None:
    """Each is named by the job at its edge, in the table and in JSON, and together they are the list, each job once."""
    digests = begun_one_after_another(store, 7)
    back = [run("list", "--limit", "3", "--json")]
    while more := re.search(r"--before (\w+)", back[-1].stderr):
        back.append(run("list", "--limit", "3", "--json", "--before", more[1]))
    pages = [[json.loads(line)["digest"] for line in one.stdout.splitlines()] for one in back]
    assert pages == [digests[4:], digests[1:4], digests[:1]]
    forth = run("list", "--limit", "3", "--after", digests[0])
    assert listed(forth.output)[:3] == digests[1:4]
    assert f"3 newer ones: the same command with --after {digests[3]}" in forth.output
    between = run("list", "--after", digests[1], "--before", digests[4], "--json")
    assert ([json.loads(line)["digest"] for line in between.stdout.splitlines()], between.stderr) == (digests[2:4], "")
    for vague, count in (("000000", 7), ("00000", 0), ("no-such-job", 0)):
        refused = run("list", "--before", vague)
        assert (refused.exit_code, f"'{vague}' is the beginning of {count} digests" in refused.stderr) == (1, True)


def test_a_page_goes_on_from_a_job_that_no_longer_fits(sandbox_env: SandboxServer, store: Store) -> None:
    """One that was open when a page ended with it may be kept when the next page is asked for."""
    horse, ride = bought(store), riding(store)
    assert run("resume", horse.digest[:12]).exit_code == 0
    (line,) = run("list", "--open", "--after", horse.digest[:12], "--json").stdout.splitlines()
    assert json.loads(line)["digest"] == ride.digest
    assert run("list", "--open", "--before", horse.digest[:12], "--json").stdout == ""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the entries that are read, in short."""
    names: list[str] = []
    read, read_all = Store.read, Store.read_all

    async def read_one(store: Store, path: str) -> bytes:
        names.append(path)
        return await read(store, path)

    async def read_many(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        names.extend(path for path in paths if not path.startswith("journal/index/"))
        async for one in read_all(store, paths):
            yield one

    monkeypatch.setattr(Store, "read", read_one)
    monkeypatch.setattr(Store, "read_all", read_many)
    return names


def test_only_what_is_shown_is_read(sandbox_env: SandboxServer, store: Store, read: list[str]) -> None:
    """Of closed jobs those of the page, none for a list of the open ones, and one that is shown by its task id; the sums are of all."""
    kept = [bought(store, take=take) for take in range(1, 5)]
    for entry in kept:
        assert run("resume", entry.digest[:12]).exit_code == 0
    riding(store)
    assert run("list").exit_code == 0

    def read_by(*arguments: str) -> set[str]:
        read.clear()
        done = run(*arguments)
        assert done.exit_code == 0, done.output
        return {path.split("/")[2].split(".")[0] for path in read}

    assert read_by("list", "--open") == set()
    assert read_by("list", "--limit", "2") == {kept[3].digest}
    assert read_by("list", "--state", "kept", "--limit", "2", "--before", kept[2].digest[:12]) == {kept[0].digest, kept[1].digest}
    assert "5 jobs in" in run("list", "--limit", "1").output
    assert kept[1].job is not None
    assert read_by("show", kept[1].job.task_id) == {kept[1].digest}


def test_a_released_lease_is_listed_only_where_it_is_asked_for(sandbox_env: SandboxServer, store: Store) -> None:
    """Nothing was bought under it, so it is no job; another state that is asked for leaves it out too."""
    sandbox_env.fault(at="submit", kind="refuse", accept=False)
    with pytest.raises(GenerationError, match="400"):
        bought(store)
    entry = bought(store, take=2)
    (released,) = [json.loads(line)["digest"] for line in run("list", "--state", "released", "--json").stdout.splitlines()]
    usual = run("list").stdout
    assert (released[:12] in usual, entry.digest[:12] in usual, "1 jobs in" in usual) == (False, True, True)
    for filters, states in (
        ((), ["submitted"]),
        (("--state", "released"), ["released"]),
        (("--state", "submitted"), ["submitted"]),
        (("--state", "released", "--state", "submitted"), ["released", "submitted"]),
        (("--open",), ["submitted"]),
    ):
        lines = [json.loads(line) for line in run("list", *filters, "--json").stdout.splitlines()]
        assert [line["state"] for line in lines] == states
    assert "Nothing is bought for it" in run("show", released[:12]).stderr
    assert len(run("resume").stdout.splitlines()) == 1


BROKEN = f"{'ee' * 32}.3.json"


def broken(store: Store) -> Path:
    """A file of the journal that cannot be read."""
    assert store.folder is not None
    file = store.folder / "journal" / "ee" / BROKEN
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"state": ')
    return file


def test_what_cannot_be_read_is_told_and_hides_no_other(sandbox_env: SandboxServer, store: Store) -> None:
    """A list and a resume of all name it on stderr, with what to do; every command goes on with the others."""
    sandbox_env.settings(job_s=3600)
    sandbox_env.fault(at="submit", kind="drop_after")
    uncertain = bought(store)
    (charged,) = sandbox_env.ledger()
    waiting, other = riding(store), riding(store, take=2)
    file = broken(store)
    for arguments in (("list",), ("list", "--open"), ("list", "--json"), ("list", "--open", "--json")):
        listed = run(*arguments)
        assert listed.exit_code == 0
        assert f"{file} cannot be read" in listed.stderr
        assert f"happyhorse jobs forget {BROKEN}" in listed.stderr
        assert [entry.digest[:12] in listed.stdout for entry in (uncertain, waiting, other)] == [True] * 3
        assert BROKEN not in listed.stdout
    assert json.loads(run("show", waiting.digest[:12]).stdout)["state"] == "submitted"
    assert other.job is not None
    assert json.loads(run("show", other.job.task_id).stdout)["digest"] == other.digest
    assert run("adopt", charged.task_id, uncertain.digest[:12]).exit_code == 0
    assert run("cancel", waiting.digest[:12]).exit_code == 0
    assert run("forget", waiting.digest[:12], "--yes").exit_code == 0
    sandbox_env.advance(3600)
    assert run("resume", other.digest[:12]).exit_code == 0
    done = run("resume")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 1)
    assert f"{file} cannot be read" in done.stderr
    unknown = run("show", BROKEN)
    assert (unknown.exit_code, unknown.stdout) == (3, "")
    assert f"{file} cannot be read" in unknown.stderr
    assert file.read_text() == '{"state": '


def test_what_cannot_be_read_is_moved_away_by_its_name(sandbox_env: SandboxServer, store: Store) -> None:
    """It may stand for a paid job, so that is asked first; nothing of it is lost, others stay, and the list is silent again."""
    entry = bought(store)
    file = broken(store)
    refused = run("forget", BROKEN, typed="n\n")
    assert (refused.exit_code, f"Move {BROKEN} out of the way?" in refused.stderr, file.exists()) == (1, True, True)
    assert run("forget", BROKEN.removesuffix(".json"), "--yes").exit_code == 3
    assert file.exists()
    moved = run("forget", BROKEN, entry.digest[:12], "--yes")
    assert moved.exit_code == 0, moved.output
    assert store.folder is not None
    away = store.folder / "journal" / "unreadable" / BROKEN
    assert (file.exists(), away.read_text()) == (False, '{"state": ')
    assert f"Moved to {away.as_uri()}" in moved.stdout
    assert f"Forgot {entry.digest[:12]}" in moved.stdout
    listed = run("list")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert run("forget", BROKEN, "--yes").exit_code == 1
