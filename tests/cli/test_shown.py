"""What a provider says, as the command line shows it: nothing moves the terminal, and no address can be opened by it."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from prefect_happyhorse.cli import main
from prefect_happyhorse.cli.output import cell, echo, fail
from prefect_happyhorse.domain.jobs import Job, JobResult, Output
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.journal.journal import Failure, Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store

NASTY = "a\x1b[2J\x9b2Jb\r\x07[red]c"
SIGNED = "https://cdn.example/horse.png?Expires=1&Signature=c2lnbmF0dXJl"
HORSE = TextToImage(model="gpt-image-2", prompt=f'Paint "{NASTY}" as in https://example.com/p?v=1')
JOB = Job(
    gateway="happyhorse",
    account="default",
    capability="text_to_image",
    model=NASTY,
    task_id=NASTY,
    digest="d" * 64,
    submitted_at=datetime(2026, 11, 20, tzinfo=timezone.utc),
)
ENTRY = JournalEntry(digest="d" * 64, state="intent", gateway="happyhorse", account="default", take=1, request=HORSE, owner=LeaseOwner())


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A journal with a finished job, and an uncertain submit whose answer named one."""
    result = JobResult(job=JOB, outputs=(Output(kind="image", url=SIGNED),), finished_at=JOB.submitted_at, polls=1, provider_status=NASTY)
    journal = Journal(Store(url=str(tmp_path)))
    failure = Failure(message=f"It answered {NASTY}.", task_id="t-$(1)")
    for entry in (
        ENTRY.model_copy(update={"state": "succeeded", "job": JOB, "result": result}),
        ENTRY.model_copy(update={"digest": "e" * 64, "state": "uncertain", "failure": failure}),
    ):
        asyncio.run(journal.create(entry))
    return str(tmp_path)


@pytest.mark.parametrize("command", [("list",), ("list", "--json"), ("show", "dddddd"), ("show", "eeeeee"), ("forget", "dddddd")])
def test_nothing_moves_the_terminal(store: str, command: tuple[str, ...]) -> None:
    """Tables, JSON, advice and questions alike."""
    shown = CliRunner().invoke(main, ["jobs", "--store", store, *command], input="n\n").output
    assert shown
    assert [control for control in "\x1b\x9b\r\x07" if control in shown] == []


def test_a_signed_address_is_shown_without_its_query(store: str) -> None:
    """By `list --json` and `show`, whose output stays JSON; the journal keeps the address, which is needed for the download."""
    for command in (("list", "--json", "--state", "succeeded"), ("show", "dddddd")):
        shown = CliRunner().invoke(main, ["jobs", "--store", store, *command]).stdout
        entry = json.loads(shown)
        assert entry["result"]["outputs"][0]["url"] == "https://cdn.example/horse.png?…"
        assert entry["job"]["task_id"] == NASTY
        assert "c2lnbmF0dXJl" not in shown
    kept = asyncio.run(Journal(Store(url=store)).read("d" * 64))
    assert kept is not None
    assert kept.result is not None
    assert kept.result.outputs[0].url == SIGNED


def test_an_uncertain_submit_proposes_the_id_that_its_answer_named(store: str) -> None:
    """As one word of a shell."""
    shown = CliRunner().invoke(main, ["jobs", "--store", store, "show", "eeeeee"])
    assert "happyhorse jobs adopt 't-$(1)' eeeeeeeeeeee" in shown.stderr


def test_every_way_to_speak_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages, errors, questions and cells."""
    echo(NASTY)
    with pytest.raises(SystemExit):
        fail(NASTY, 1)
    told = capsys.readouterr()
    assert told.out == told.err == "a\\x1b[2J\\x9b2Jb\\r\\x07[red]c\n"
    out = io.StringIO()
    table = Table("word")
    table.add_row(cell(NASTY))
    Console(file=out, width=80).print(table)
    assert "a\\x1b[2J\\x9b2Jb\\r\\x07[red]c" in out.getvalue()
