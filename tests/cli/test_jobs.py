"""`happyhorse jobs`: what a person does about the jobs of the journal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.cli.journal import HORSE, bought, entry_of, riding, run, write

from prefect_happyhorse.domain.errors import JobFailed
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Failure, Journal, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("resume",), ("adopt",), ("forget",), ("cancel",)])
def test_every_command_says_what_it_is_for(command: tuple[str, ...]) -> None:
    """--help needs no store."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


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


def test_a_submit_under_way_is_left_alone(store: Store, caplog: pytest.LogCaptureFixture) -> None:
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
    # It has ended, so that there is nothing to wait for.
    assert run("forget", entry.digest, "--yes").exit_code == 0
    assert "Waiting up to" not in caplog.text


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


@pytest.mark.parametrize("command", ["resume", "cancel"])
def test_without_credentials_a_paid_job_is_told_as_paid(
    command: str, sandbox_env: SandboxServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell without the environment asks nobody; the job, what is spent and the way out are told, and the exit code is 3."""
    entry = bought(store)
    assert entry.job is not None
    for name in ("API_KEY", "BASE_URL"):
        monkeypatch.delenv(f"HAPPYHORSE_{name}")
    told = run(command, entry.job.task_id)
    assert told.exit_code == 3
    for part in ("PollRejected", "HAPPYHORSE_API_KEY", f"task_id={entry.job.task_id}", "Money: spent.", "The job is not touched"):
        assert part in told.stderr
    assert "othing was sent" not in told.stderr
    monkeypatch.setenv("HAPPYHORSE_BASE_URL", "http://elsewhere.example")
    wrong = run(command, entry.job.task_id)
    assert (wrong.exit_code, "must be https" in wrong.stderr, "pydantic.dev" in wrong.stderr) == (3, True, False)
