"""`happyhorse jobs`: what a person sees of the journal and does about it."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prefect_happyhorse.cli import main
from prefect_happyhorse.domain.errors import GenerationError, JobFailed, SubmissionUncertain
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage
from prefect_happyhorse.engine.jobs.submit import Submitter, prepare
from prefect_happyhorse.engine.journal.journal import Failure, Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

HORSE = TextToImage(model="gpt-image-2", prompt="A white [horse]")
RIDE = ReferenceToVideo(
    model="happyhorse-1.0-r2v", prompt="It runs", references=("https://example.com/a.png",), resolution="720p", duration=5
)


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, ["jobs", *arguments], input=typed)


@pytest.fixture
def store(sandbox_env: SandboxServer, tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "outputs"))


async def _buy(store: Store, request: TextToImage | ReferenceToVideo, gateway: str, take: int) -> JournalEntry:
    from prefect_happyhorse.blocks import GatewayCredentials

    account = GatewayCredentials.from_environment(gateway).to_account()
    prepared = await prepare(request, account, take=take)
    with suppress(SubmissionUncertain):
        await Submitter(store=store).submit(prepared)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    return entry


def bought(store: Store, *, take: int = 1) -> JournalEntry:
    return asyncio.run(_buy(store, HORSE, "happyhorse", take))


def riding(store: Store, *, take: int = 1) -> JournalEntry:
    return asyncio.run(_buy(store, RIDE, "infiflow", take))


def entry_of(store: Store, digest: str) -> JournalEntry | None:
    return asyncio.run(Journal(store).read(digest))


def write(store: Store, entry: JournalEntry) -> None:
    """Write an entry in the place of the one that is there."""
    asyncio.run(Journal(store).update(entry.digest, lambda _: entry))


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("resume",), ("adopt",), ("forget",), ("cancel",)])
def test_every_command_says_what_it_is_for(command: tuple[str, ...]) -> None:
    """--help needs no store."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


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


def test_a_job_shows_all_that_is_known_and_what_to_do(sandbox_env: SandboxServer, store: Store) -> None:
    """The entry in JSON, and one line of advice for each state."""
    sandbox_env.fault(at="submit", kind="drop_after")
    uncertain = bought(store)
    shown = run("show", uncertain.digest[:8])
    assert json.loads(shown.stdout)["state"] == "uncertain"
    assert f"happyhorse jobs adopt TASK_ID {uncertain.digest[:12]}" in shown.stderr
    entry = bought(store, take=2)
    assert entry.job is not None
    assert f"jobs resume {entry.digest[:12]}" in run("show", entry.job.task_id).stderr
    run("resume", entry.job.task_id)
    assert "Kept at file://" in run("show", entry.job.task_id).stderr
    failed = entry.model_copy(update={"state": "failed"})
    write(store, failed.model_copy(update={"asset": None, "failure": Failure(message="It was too dark.")}))
    assert f"jobs forget {entry.digest[:12]}" in run("show", entry.digest).stderr
    assert run("show", "nothing").exit_code == 1


def test_resume_keeps_what_is_open_and_buys_nothing(sandbox_env: SandboxServer, store: Store) -> None:
    """Without a name it is every open job; the files' paths are printed; a job that fails is told and ends with exit code 3."""
    bought(store)
    riding(store)
    done = run("resume")
    assert done.exit_code == 0
    assert [Path(line).stat().st_size > 0 for line in done.stdout.splitlines()] == [True, True]
    assert run("resume").stdout == ""
    sandbox_env.fault(at="poll", kind="fail_job")
    lost = bought(store, take=2)
    failed = run("resume")
    assert failed.exit_code == 3
    assert f"{lost.digest[:12]}: JobFailed" in failed.stderr
    assert len(sandbox_env.ledger()) == 3


def test_an_uncertain_submit_is_adopted(sandbox_env: SandboxServer, store: Store) -> None:
    """The only one without a job needs no name; after it, the run that failed is resumed and buys nothing."""
    assert run("adopt", "t-1").exit_code == 1
    sandbox_env.fault(at="submit", kind="drop_after")
    entry = bought(store)
    (charged,) = sandbox_env.ledger()
    assert "does not know" in run("adopt", "typo").stderr
    adopted = run("adopt", charged.task_id)
    assert (adopted.exit_code, charged.task_id in adopted.output) == (0, True)
    assert run("resume").exit_code == 0
    assert bought(store).state == "kept"
    assert len(sandbox_env.ledger()) == 1
    assert entry.job is None


def test_of_several_uncertain_submits_one_is_named(sandbox_env: SandboxServer, store: Store) -> None:
    """Which of two requests a task id belongs to is never guessed."""
    sandbox_env.fault(at="submit", kind="drop_after", times=2)
    one, two = bought(store), bought(store, take=2)
    vague = run("adopt", "t-1", "--unchecked")
    assert (vague.exit_code, one.digest[:12] in vague.stderr, two.digest[:12] in vague.stderr) == (1, True, True)
    assert run("adopt", "t-1", two.digest[:12], "--unchecked").exit_code == 0


def test_a_failed_job_that_is_named_is_asked_for_again(sandbox_env: SandboxServer, store: Store) -> None:
    """Its failure may have been told by mistake; of all open jobs it is none. Nothing is bought for it."""
    entry = bought(store)
    assert entry.job is not None
    asyncio.run(Journal(store).known_failure(JobFailed("It was too dark."), entry.job))
    assert (run("resume").stdout, run("list", "--open", "--json").stdout) == ("", "")
    done = run("resume", entry.digest[:12])
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()).stat().st_size > 0
    kept = entry_of(store, entry.digest)
    assert kept is not None
    assert kept.state == "kept"
    assert len(sandbox_env.ledger()) == 1


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


def test_forgetting_asks_first(sandbox_env: SandboxServer, store: Store) -> None:
    """It would let the same be paid for again, so it is confirmed, or said with --yes."""
    entry = bought(store)
    assert run("forget", entry.digest[:12], typed="n\n").exit_code == 1
    assert entry_of(store, entry.digest) == entry
    assert run("forget", entry.digest[:12], typed="y\n").exit_code == 0
    forgotten = entry_of(store, entry.digest)
    assert forgotten is not None
    assert (forgotten.state, forgotten.job, len(forgotten.aside)) == ("forgotten", None, 1)
    again = bought(store)
    assert run("forget", again.digest[:12], "--yes").exit_code == 0
    assert len(sandbox_env.ledger()) == 2
    # Both are paid for, and go on.
    lines = [json.loads(line) for line in run("list", "--open", "--json").output.splitlines()]
    assert [line["job"]["task_id"] for line in lines] == [charged.task_id for charged in sandbox_env.ledger()]
    assert len(run("resume").stdout.splitlines()) == 2


def test_a_submit_under_way_is_left_alone(store: Store) -> None:
    """Neither forgotten nor cancelled."""
    entry = bought(store)
    intent = entry.model_copy(update={"state": "intent", "job": None, "owner": LeaseOwner()})
    write(store, intent)
    with intent.owner.submitting():
        assert "right now" in run("forget", entry.digest, "--yes").stderr
        assert "nothing to cancel" in run("cancel", entry.digest).stderr
    left = entry_of(store, entry.digest)
    assert left is not None
    assert (left.state, left.owner) == ("intent", intent.owner)


def test_cancel_says_what_the_gateway_answered(sandbox_env: SandboxServer, store: Store) -> None:
    """A job that waits is taken back; one that runs goes on, and the command fails; so does one of a gateway without a way."""
    sandbox_env.settings(job_s=3600)
    waiting, running, other = riding(store), riding(store, take=2), bought(store)
    assert run("cancel", waiting.digest[:12]).exit_code == 0
    sandbox_env.advance(1800)
    refused = run("cancel", running.digest[:12], other.digest[:12])
    assert (refused.exit_code, "2 of 2 jobs were not cancelled" in refused.stderr) == (1, True)
    assert "no way to cancel" in refused.stderr
    assert [entry.refunded for entry in sandbox_env.ledger()] == [True, False, False]
    assert "taken back" not in run("show", running.digest[:12]).stderr
    assert "buys it again" in run("show", waiting.digest[:12]).stderr


def test_the_store_may_be_named(sandbox_env: SandboxServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its address, or by the block that is saved."""
    bought(store)
    monkeypatch.delenv("HAPPYHORSE_STORE")
    monkeypatch.chdir(tmp_path)
    assert "1 jobs" in run("--store", "outputs", "list").output
    assert "0 jobs" in run("--store", str(tmp_path / "elsewhere"), "list").output


@pytest.mark.usefixtures("prefect_server")
def test_a_saved_store_and_saved_credentials_are_found(sandbox_env: SandboxServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was bought with a block is resumed with it, from a journal that a block names."""
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore

    async def save_and_buy() -> None:
        block = GatewayCredentials(gateway="happyhorse", api_key="sesame-1234", base_url=sandbox_env.base_url("happyhorse"), account="film")
        await block.asave("film", overwrite=True)
        await MediaStore(url=store.url).asave("shelf", overwrite=True)
        account = (await GatewayCredentials.find("film")).to_account()
        await Submitter(store=store).submit(await prepare(HORSE, account))

    asyncio.run(save_and_buy())
    for name in ("HAPPYHORSE_STORE", "HAPPYHORSE_API_KEY", "HAPPYHORSE_BASE_URL"):
        monkeypatch.delenv(name)
    resumed = run("--block", "shelf", "resume")
    assert resumed.exit_code == 0, resumed.output
    assert asyncio.run(Journal(store).entries()).entries[0].state == "kept"


def test_credentials_of_another_account_are_not_used(sandbox_env: SandboxServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway would not know the job, and its key would be shown to nobody's gateway."""
    entry = bought(store)
    monkeypatch.setenv("HAPPYHORSE_ACCOUNT", "other")
    told = run("resume", entry.digest[:12])
    assert (told.exit_code, "the job belongs to 'sandbox'" in told.stderr) == (3, True)
