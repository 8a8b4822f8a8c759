"""`happyhorse jobs list`: what a person sees of the journal, and what of it cannot be read."""

from __future__ import annotations

import asyncio
import json
import re
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
        "1 open; money at risk: 1 of unknown price",
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
    few = run("list", "--newest", "3")
    assert (few.exit_code, listed(few.output)) == (0, digests[-3:])
    assert "7 jobs in" in few.output
    assert "7 open" in few.output
    assert "The table shows the newest 3; --newest 0 shows all." in few.output
    for enough in ("0", "7", "8"):
        whole = run("list", "--newest", enough)
        assert listed(whole.output) == digests
        assert "--newest" not in whole.output
    refused = run("list", "--newest", "-1")
    assert (refused.exit_code, "-1 is not in the range" in refused.stderr) == (2, True)


def test_two_hundred_are_shown_unless_more_are_asked_for(store: Store) -> None:
    """JSON is for programs, which get every entry; filters come before the counting."""
    digests = begun_one_after_another(store, 203)
    usual = run("list").output
    assert listed(usual) == digests[3:]
    assert "203 jobs in" in usual
    assert "The table shows the newest 200" in usual
    assert listed(run("list", "--newest", "0").output) == digests
    lines = run("list", "--newest", "2", "--json").output.splitlines()
    assert [json.loads(line)["digest"] for line in lines] == digests
    old = run("list", "--newest", "2", "--older-than", "100h").output
    assert listed(old) == digests[102:104]
    assert "104 jobs in" in old


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
