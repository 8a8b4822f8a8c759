"""`happyhorse jobs`: what was bought, what is still open, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta, timezone
from functools import partial, wraps
from typing import Any, get_args

import click
from rich.table import Table

from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli.output import SPENT, Seconds, asynchronous, cell, confirm, console, echo, echo_json, fail
from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.domain.prices import total
from prefect_happyhorse.engine.jobs import manage as engine
from prefect_happyhorse.engine.jobs.hints import resolve_uncertain
from prefect_happyhorse.engine.jobs.poll import DEADLINE_S
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, JournalState
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["jobs"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AT_ONCE = 20


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise click.BadParameter(f"must be a number and s, m, h or d, for example 90m or 2d (got {text!r})")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except (OverflowError, ValueError) as error:
        raise click.BadParameter(f"must be at most {timedelta.max.days}d (got {text!r})") from error


_FILTERS = (
    click.Option(
        ["--state", "states"], multiple=True, type=click.Choice(get_args(JournalState)), help="Only jobs in this state; may be repeated."
    ),
    click.Option(["--open", "only_open"], is_flag=True, help="Only jobs that cost or may have cost money and have no file yet."),
    click.Option(["--gateway"], type=click.Choice(GATEWAYS), help="Only this gateway."),
    click.Option(["--account"], help="Only this account label."),
    click.Option(["--older-than"], type=_age, metavar="AGE", help="Only jobs begun longer ago than this, for example 2h."),
    click.Option(["--younger-than"], type=_age, metavar="AGE", help="Only jobs begun no longer ago than this, for example 3d."),
)


@click.group()
@click.option(
    "--store",
    metavar="URL",
    default=lambda: os.environ.get("HAPPYHORSE_STORE") or "outputs",
    show_default="HAPPYHORSE_STORE, else outputs",
    help="The folder or fsspec URL in which the journal lies.",
)
@click.option("--block", metavar="NAME", help="The saved MediaStore block of the store, in place of --store.")
@click.pass_context
def jobs(context: click.Context, store: str, block: str | None) -> None:
    """See what was bought and what is still open; adopt, resume, cancel or forget it.

    NAME is a task id, or the first six or more characters of a request digest, as `happyhorse jobs list` shows them.
    """
    context.obj = partial(_journal, store, block)


async def _journal(url: str, block: str | None) -> Journal:
    if block is None:
        return PROCESS.journal(Store(url=url))
    from prefect_happyhorse.blocks import MediaStore

    return PROCESS.journal((await MediaStore.find(block)).to_store())


def _on_journal(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A command whose first argument is the journal, which is looked up only now."""

    @click.pass_obj
    @asynchronous
    @wraps(command)
    async def run(journal: Callable[[], Awaitable[Journal]], **given: Any) -> None:
        await command(await journal(), **given)

    return run


@jobs.command("list", params=[*_FILTERS])
@click.option("--json", "as_json", is_flag=True, help="Every journal entry, one a line, in JSON.")
@click.option("--newest", default=200, show_default=True, type=click.IntRange(min=0), help="How many the table shows at most; 0 for all.")
@_on_journal
async def list_jobs(journal: Journal, *, as_json: bool, newest: int, **filters: Any) -> None:
    """List jobs, oldest first, and sum up the money at risk of all."""
    entries = await _select(journal, **filters)
    if as_json:
        for entry in entries:
            echo_json(entry.model_dump_json(exclude_none=True))
        return
    table = Table("digest", "state", "gateway", "account", "model", "task id", "begun", "cost", "prompt")
    shown = entries[-newest:] if newest else entries
    for entry in shown:
        estimate = entry.estimate
        cost = "unknown" if estimate is None or estimate.amount is None else f"{estimate.amount} {estimate.currency}"
        cells = (
            entry.digest[:12],
            entry.state,
            entry.gateway,
            entry.account,
            entry.request.model,
            "" if entry.job is None else entry.job.task_id,
            _ago(entry.begun_at),
            cost,
            " ".join((entry.request.prompt or "").split())[:40],
        )
        table.add_row(*map(cell, cells))
    console().print(table)
    at_risk = [entry for entry in entries if entry.is_open]
    money = f"; money at risk: {total(entry.estimate for entry in at_risk)}" if at_risk else ""
    echo(f"{len(entries)} jobs in {journal.store.url}; {len(at_risk)} open{money}.")
    if len(shown) < len(entries):
        echo(f"The table shows the newest {len(shown)}; --newest 0 shows all.")


async def _select(journal: Journal, *, states: tuple[JournalState, ...], only_open: bool, **filters: Any) -> list[JournalEntry]:
    listing = await (open_entries(journal) if only_open else journal.entries())
    for unreadable in listing.unreadable:
        echo(str(unreadable.error), err=True)
    # A lease that was released means that nothing was bought.
    entries = [entry for entry in listing.entries if entry.state in states or entry.state != "released"]
    return engine.select(entries, states=states, **filters)


def _ago(at: datetime) -> str:
    seconds = (datetime.now(timezone.utc) - at).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


@jobs.command()
@click.argument("name")
@_on_journal
async def show(journal: Journal, name: str) -> None:
    """Show all that the journal knows of one job, and what can be done about it."""
    entry = await engine.find_entry(journal, name)
    echo_json(entry.model_dump_json(indent=2, exclude_none=True))
    echo(_advice(entry), err=True)


def _advice(entry: JournalEntry) -> str:
    short = entry.digest[:12]
    if entry.job is None and entry.may_be_bought_again:
        return "Nothing is bought for it: the same request buys it."
    if entry.job is None:
        named = None if entry.failure is None else entry.failure.task_id
        return f"Nobody knows whether this submit was accepted. {resolve_uncertain(entry.digest, named)}"
    if entry.is_open:
        return f"It is paid for and no file is kept yet: happyhorse jobs resume {short}"
    if entry.asset is not None:
        return f"Kept at {entry.asset.uri}"
    if entry.may_be_bought_again:
        return "The gateway took it back before it began: the same request buys it again."
    return f"It ended without a result. The same request is not bought again until `happyhorse jobs forget {short}`, or with another take."


@jobs.command(params=[*_FILTERS])
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--deadline",
    "deadline_s",
    default=DEADLINE_S,
    show_default=True,
    type=Seconds(min=0),
    help="How long a job may take in all, in seconds since its submit.",
)
@_on_journal
async def resume(journal: Journal, names: tuple[str, ...], deadline_s: float, only_open: bool, **filters: Any) -> None:
    """Wait for open jobs and keep their files: those that are named, else all that fit the filters. Nothing is bought."""
    if names:
        chosen = [await engine.find_entry(journal, name) for name in names]
    else:
        chosen = await _select(journal, only_open=True, **filters)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(entry: JournalEntry) -> bool:
        async with slots:
            try:
                stored = await (await _session(journal, entry)).resume(entry, deadline_s=deadline_s, again=bool(names))
            except (GenerationError, ValueError, OSError) as error:
                echo(f"{entry.digest[:12]}: {type(error).__name__}: {error}", err=True)
                return False
        for asset, _ in stored.with_thumbnails():
            echo(asset.uri.removeprefix("file://"))
        if stored.failure is not None:
            echo(f"{entry.digest[:12]}: {type(stored.failure).__name__}: {stored.failure}", err=True)
        return stored.failure is None

    try:
        kept = await asyncio.gather(*(one(entry) for entry in chosen))
    except asyncio.CancelledError:
        fail("Interrupted; the jobs that are not kept stay in the journal: happyhorse jobs list --open", SPENT)
    if failed := kept.count(False):
        fail(f"{failed} of the jobs are not kept; they stay in the journal.", SPENT)


async def _session(journal: Journal, entry: JournalEntry) -> Session:
    from prefect_happyhorse.blocks import GatewayCredentials

    block = await GatewayCredentials.of_job(gateway=entry.gateway, account=entry.account, name=entry.credentials, job=entry.job)
    return Session(block.to_account(), journal.store)


@jobs.command()
@click.argument("task_id")
@click.argument("name", required=False)
@click.option("--unchecked", is_flag=True, help="Take your word for it, and do not ask the gateway whether it knows the job.")
@_on_journal
async def adopt(journal: Journal, task_id: str, name: str | None, *, unchecked: bool) -> None:
    """Give an uncertain submit the job that it became, by the TASK_ID that the provider's console shows. Nothing is bought."""
    if name is not None:
        entry = await engine.find_entry(journal, name)
    else:
        without_job = [entry for entry in (await open_entries(journal)).entries if entry.job is None]
        if len(without_job) != 1:
            digests = ", ".join(entry.digest[:12] for entry in without_job) or "none"
            raise ValueError(f"Say which request the job belongs to; those without a job: {digests}.")
        entry = without_job[0]
    entry = await (engine.adopt(journal, entry, task_id) if unchecked else (await _session(journal, entry)).adopt(entry, task_id))
    short = entry.digest[:12]
    echo(f"{short} is job {task_id} of {entry.gateway}. Run the flow again, or: happyhorse jobs resume {short}")


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_on_journal
async def forget(journal: Journal, names: tuple[str, ...], *, yes: bool) -> None:
    """Let the same requests be bought again. Files stay, and so do jobs that were bought, each by itself.

    A file of the journal that cannot be read is moved out of the way: NAME is then the file's name, as `happyhorse jobs list` says it.
    """
    chosen: list[JournalEntry] = []
    for name in names:
        try:
            chosen.append(await engine.find_entry(journal, name))
        except SubmissionUncertain as error:
            if not name.endswith(".json"):
                raise
            if not yes:
                confirm(f"{error} Move {name} out of the way?")
            if (away := await journal.put_away(name)) is None:
                raise
            echo(f"Moved to {away}.")
    for entry in chosen:
        known = "an uncertain submit" if entry.job is None else f"job {entry.job.task_id}, {entry.state}"
        if not yes:
            confirm(f"Forget {entry.digest[:12]} ({known})? The same request would be paid for again.")
        await engine.forget(journal, entry)
        echo(f"Forgot {entry.digest[:12]} ({known}).")


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_on_journal
async def cancel(journal: Journal, names: tuple[str, ...]) -> None:
    """Ask the gateways to cancel jobs, where they can. A job that already runs goes on, and can be resumed."""
    refused = 0
    for name in names:
        entry = await engine.find_entry(journal, name)
        if entry.job is None or not entry.is_open:
            raise ValueError(f"{name}: its state is {entry.state}, so there is nothing to cancel.")
        answer = await (await _session(journal, entry)).cancel(entry.job)
        echo(f"{name}: {answer.message}", err=not answer.accepted)
        refused += not answer.accepted
    if refused:
        fail(f"{refused} of {len(names)} jobs were not cancelled.", 1)
