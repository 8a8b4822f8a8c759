"""`happyhorse jobs`: what was bought, what is still open, and what to do about it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli.output import (
    SPENT,
    asynchronous,
    cell,
    confirm,
    console,
    deadline_option,
    echo,
    echo_json,
    fail,
    json_option,
    print_json,
)
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.domain.prices import total
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.journal.index import Line, begun, contents, open_entries
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, JournalState, Unreadable
from prefect_happyhorse.engine.storage.store import Store

# The engine of jobs is imported where it is used: a shell that asks for suggestions needs none of it.
if TYPE_CHECKING:
    from prefect_happyhorse.engine.jobs.session import Session

__all__ = ["STORE_OPTIONS", "find_journal", "jobs"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AT_ONCE = 20
_SHOWN = 200
_DIGEST = 12

_Listed = TypeVar("_Listed", JournalEntry, Line)


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


STORE_OPTIONS = (
    click.Option(
        ["--store"],
        metavar="URL",
        default=lambda: current().store or "outputs",
        show_default="HAPPYHORSE_STORE, else outputs",
        help="The folder or fsspec URL in which the journal lies.",
    ),
    click.Option(["--block"], metavar="NAME", help="The saved MediaStore block of the store, in place of --store."),
)
"""Which store a command is about, as `find_journal` takes it."""


@click.group(params=[*STORE_OPTIONS])
@click.pass_context
def jobs(context: click.Context, store: str, block: str | None) -> None:
    """See what was bought and what is still open; adopt, resume, cancel or forget it.

    NAME is a task id, or the first six or more characters of a request digest, as `happyhorse jobs list` shows them.
    """
    context.obj = partial(find_journal, store, block)


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell suggests: the digests in the journal of a folder; an object store would be asked for too long."""
    del parameter
    url: Any = None if context.parent is None else context.parent.params.get("store")
    folder = Store(url=str(url or "outputs")).folder
    if folder is None or re.fullmatch("[0-9a-f]*", incomplete) is None:
        return []
    found = islice(folder.glob(f"journal/{incomplete[:2]}*/{incomplete}*.json"), _SHOWN)
    return sorted({file.name[:_DIGEST] for file in found if len(file.parent.name) == 2})


async def find_journal(url: str, block: str | None) -> Journal:
    """The journal of a store that is named by its URL or its block; that there is none yet is told."""
    from prefect_happyhorse.engine.jobs.shared import PROCESS

    if block is None:
        store = Store(url=url)
    else:
        from prefect_happyhorse.blocks import MediaStore
        from prefect_happyhorse.cli.doctor.server import require_api

        await require_api()
        store = (await MediaStore.find(block)).to_store()
    # A store that cannot be listed is told by what reads it next.
    with suppress(OSError):
        if not await store.folders("journal"):
            way_out = "another store is meant: name it by --store URL, --block NAME or the variable HAPPYHORSE_STORE"
            echo(f"There is no journal in {store.url}: nothing was bought there yet, or {way_out}.", err=True)
    return PROCESS.journal(store)


def _on_journal(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A command whose first argument is the journal, which is looked up only now."""

    @click.pass_obj
    @asynchronous
    @wraps(command)
    async def run(journal: Callable[[], Awaitable[Journal]], **given: Any) -> None:
        await command(await journal(), **given)

    return run


@jobs.command("list", params=[*_FILTERS])
@json_option("Print journal entries, one JSON document a line.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help="How many are shown at most, the newest; 0 for all.  [default: 200 in the table, all with --json]",
)
@click.option("--before", metavar="DIGEST", help="Only jobs begun before this one: the page before a page.")
@click.option("--after", metavar="DIGEST", help="Only jobs begun after this one, of which the oldest are shown: the page after a page.")
@_on_journal
async def list_jobs(
    journal: Journal, *, as_json: bool, limit: int | None, before: str | None, after: str | None, only_open: bool, **filters: Any
) -> None:
    """List jobs, oldest first, and sum up the money at risk of all."""
    from prefect_happyhorse.engine.jobs import manage

    found = await contents(journal)
    for unreadable in found.unreadable:
        echo(str(unreadable.error), err=True)
    fitting = sorted(_bought([line for line in found.lines if line.is_open or not only_open], **filters), key=begun)
    # A job that a page ended with need not fit any more when the next page is asked for.
    first = None if after is None else manage.position(found.lines, after)
    last = None if before is None else manage.position(found.lines, before)
    rest = [line for line in fitting if (first is None or begun(line) > first) and (last is None or begun(line) < last)]
    most = (0 if as_json else _SHOWN) if limit is None else limit
    shown = rest if not most else rest[:most] if after is not None else rest[-most:]
    opened = {entry.digest: entry for entry in found.open_entries}
    from rich.table import Table

    table = Table("digest", "state", "gateway", "account", "model", "task id", "begun", "cost", "prompt")
    async for entry in _entries(journal, shown, opened):
        if as_json:
            print_json(entry)
        else:
            table.add_row(*map(cell, _row(entry)))
    if not as_json:
        console().print(table)
        at_risk = [line for line in fitting if line.is_open]
        money = f"; money at risk: {total(opened[line.digest].estimate for line in at_risk)}" if at_risk else ""
        echo(f"{len(fitting)} jobs in {journal.store.url}; {len(at_risk)} open{money}.")
    if more := len(rest) - len(shown):
        edge, option, which = (shown[-1], "--after", "newer") if after is not None else (shown[0], "--before", "older")
        echo(f"{more} {which} ones: the same command with {option} {edge.digest[:_DIGEST]}; --limit 0 shows all.", err=as_json)


async def _entries(journal: Journal, lines: Sequence[Line], opened: Mapping[str, JournalEntry]) -> AsyncGenerator[JournalEntry, None]:
    """The entries of some lines, in their order; only those are read that are not known yet."""
    for start in range(0, len(lines), _SHOWN):
        some = lines[start : start + _SHOWN]
        known = {line.digest: opened[line.digest] for line in some if line.digest in opened}
        async for one in journal.read_all({line.digest: line.revision for line in some if line.digest not in known}):
            if isinstance(one, Unreadable):
                echo(str(one.error), err=True)
            else:
                known[one.digest] = one
        for line in some:
            if line.digest in known:
                yield known[line.digest]


def _row(entry: JournalEntry) -> tuple[str, ...]:
    estimate = entry.estimate
    return (
        entry.digest[:_DIGEST],
        entry.state,
        entry.gateway,
        entry.account,
        entry.request.model,
        "" if entry.job is None else entry.job.task_id,
        _ago(entry.begun_at),
        "unknown" if estimate is None or estimate.amount is None else f"{estimate.amount} {estimate.currency}",
        " ".join((entry.request.prompt or "").split())[:40],
    )


def _bought(entries: Iterable[_Listed], *, states: tuple[JournalState, ...], **filters: Any) -> list[_Listed]:
    from prefect_happyhorse.engine.jobs import manage

    # A lease that was released means that nothing was bought.
    bought = (entry for entry in entries if entry.state in states or entry.state != "released")
    return manage.select(bought, states=states, **filters)


def _ago(at: datetime) -> str:
    seconds = (datetime.now(timezone.utc) - at).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


@jobs.command()
@click.argument("name", shell_complete=_names)
@json_option("Change nothing: it prints JSON anyway.", expose_value=False)
@_on_journal
async def show(journal: Journal, name: str) -> None:
    """Show all that the journal knows of one job, and what can be done about it."""
    from prefect_happyhorse.engine.jobs import manage
    from prefect_happyhorse.engine.jobs.hints import advice

    entry = await manage.find_entry(journal, name)
    echo_json(entry.model_dump_json(indent=2, exclude_none=True))
    echo(advice(entry), err=True)


@jobs.command(params=[*_FILTERS])
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_names)
@deadline_option("How long a job may take in all, in seconds since its submit.")
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
@_on_journal
async def resume(journal: Journal, names: tuple[str, ...], deadline_s: float, only_open: bool, *, as_json: bool, **filters: Any) -> None:
    """Wait for open jobs and keep their files: those that are named, else all that fit the filters. Nothing is bought."""
    from prefect_happyhorse.engine.jobs import manage

    if names:
        chosen = [await manage.find_entry(journal, name) for name in names]
    else:
        listing = await open_entries(journal)
        for unreadable in listing.unreadable:
            echo(str(unreadable.error), err=True)
        chosen = _bought(listing.entries, **filters)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(entry: JournalEntry) -> bool:
        async with slots:
            try:
                stored = await (await _session(journal, entry)).resume(entry, deadline_s=deadline_s, again=bool(names))
                assets, failure = [asset for asset, _ in stored.with_thumbnails()], stored.failure
            except (GenerationError, ValueError, OSError) as error:
                assets, failure = [], error
        return _say_kept(entry, assets, failure, as_json=as_json)

    try:
        kept = await asyncio.gather(*(one(entry) for entry in chosen))
    except asyncio.CancelledError:
        fail("Interrupted; the jobs that are not kept stay in the journal: happyhorse jobs list --open", SPENT)
    if failed := kept.count(False):
        fail(f"{failed} of the jobs are not kept; they stay in the journal.", SPENT)


def _say_kept(entry: JournalEntry, assets: Sequence[MediaAsset], failure: Exception | None, *, as_json: bool) -> bool:
    """Print what was kept of a job, and what is wrong with it; whether it is all there."""
    told = None if failure is None else f"{type(failure).__name__}: {failure}"
    if as_json:
        print_json({"digest": entry.digest, "assets": assets, "failure": told})
    else:
        for asset in assets:
            echo(asset.uri.removeprefix("file://"))
    for warning in (warning for asset in assets for warning in asset.warnings):
        echo(f"{entry.digest[:12]}: {warning}", err=True)
    if told is not None:
        echo(f"{entry.digest[:12]}: {told}", err=True)
    return told is None


async def _session(journal: Journal, entry: JournalEntry) -> Session:
    from prefect_happyhorse.blocks import GatewayCredentials
    from prefect_happyhorse.engine.jobs.session import Session

    block = await GatewayCredentials.of_job(gateway=entry.gateway, account=entry.account, name=entry.credentials, job=entry.job)
    return Session(block.to_account(), journal.store)


@jobs.command()
@click.argument("task_id")
@click.argument("name", required=False, shell_complete=_names)
@click.option("--unchecked", is_flag=True, help="Take your word for it, and do not ask the gateway whether it knows the job.")
@json_option()
@_on_journal
async def adopt(journal: Journal, task_id: str, name: str | None, *, unchecked: bool, as_json: bool) -> None:
    """Give an uncertain submit the job that it became, by the TASK_ID that the provider's console shows. Nothing is bought."""
    from prefect_happyhorse.engine.jobs import manage

    if name is not None:
        entry = await manage.find_entry(journal, name)
    else:
        without_job = [entry for entry in (await open_entries(journal)).entries if entry.job is None]
        if len(without_job) != 1:
            digests = ", ".join(entry.digest[:12] for entry in without_job) or "none"
            raise ValueError(f"Say which request the job belongs to; those without a job: {digests}.")
        entry = without_job[0]
    entry = await (manage.adopt(journal, entry, task_id) if unchecked else (await _session(journal, entry)).adopt(entry, task_id))
    if as_json:
        print_json(entry)
    short = entry.digest[:12]
    echo(f"{short} is job {task_id} of {entry.gateway}. Run the flow again, or: happyhorse jobs resume {short}", err=as_json)


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
@_on_journal
async def forget(journal: Journal, names: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Let the same requests be bought again. Files stay, and so do jobs that were bought, each by itself.

    A file of the journal that cannot be read is moved out of the way: NAME is then the file's name, as `happyhorse jobs list` says it.
    """
    from prefect_happyhorse.engine.jobs import manage

    chosen: list[JournalEntry] = []
    for name in names:
        try:
            chosen.append(await manage.find_entry(journal, name))
        except SubmissionUncertain as error:
            if not name.endswith(".json"):
                raise
            if not yes:
                confirm(f"{error} Move {name} out of the way?")
            if (away := await journal.put_away(name)) is None:
                raise
            if as_json:
                print_json({"name": name, "moved_to": away})
            echo(f"Moved to {away}.", err=as_json)
    for entry in chosen:
        known = "an uncertain submit" if entry.job is None else f"job {entry.job.task_id}, {entry.state}"
        if not yes:
            confirm(f"Forget {entry.digest[:12]} ({known})? The same request would be paid for again.")
        await manage.forget(journal, entry)
        if as_json:
            print_json({"name": entry.digest[:_DIGEST], "digest": entry.digest})
        echo(f"Forgot {entry.digest[:12]} ({known}).", err=as_json)


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=_names)
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
@_on_journal
async def cancel(journal: Journal, names: tuple[str, ...], *, as_json: bool) -> None:
    """Ask the gateways to cancel jobs, where they can. A job that already runs goes on, and can be resumed."""
    from prefect_happyhorse.engine.jobs import manage

    refused = 0
    for name in names:
        entry = await manage.find_entry(journal, name)
        if entry.job is None or not entry.is_open:
            raise ValueError(f"{name}: its state is {entry.state}, so there is nothing to cancel.")
        answer = await (await _session(journal, entry)).cancel(entry.job)
        if as_json:
            print_json({"name": name, "accepted": answer.accepted, "message": answer.message})
        echo(f"{name}: {answer.message}", err=as_json or not answer.accepted)
        refused += not answer.accepted
    if refused:
        fail(f"{refused} of {len(names)} jobs were not cancelled.", 1)
