"""`happyhorse generate`: make what one request asks for."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import click
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from prefect_happyhorse.catalog import GATEWAYS, find_route
from prefect_happyhorse.cli.output import REFUSED, SPENT, asynchronous, cell, console, deadline_option, echo, fail, json_option, print_json
from prefect_happyhorse.cli.preview import listed, read_request
from prefect_happyhorse.domain.errors import AuthenticationFailed
from prefect_happyhorse.domain.jobs import Job, JobSnapshot
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import SubmitPolicy, Submitted
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

__all__ = ["generate"]


@click.command()
@click.argument("request_file", metavar="REQUEST.json", type=click.Path(path_type=Path))
@click.option(
    "--gateway",
    "gateways",
    type=click.Choice(GATEWAYS),
    required=True,
    multiple=True,
    help="The gateway; given again, the next one, asked only when the one before certainly bought nothing.",
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder for the file and the journal.")
@click.option("--take", default=1, show_default=True, help="Another number makes another variation of the very same request.")
@deadline_option("How long the job may take, in seconds.")
@json_option()
@asynchronous
async def generate(request_file: Path, gateways: tuple[str, ...], output: Path, take: int, deadline_s: float, *, as_json: bool) -> None:
    """Make what a request asks for, and print where the file lies.

    The key is read from <GATEWAY>_API_KEY and the address from <GATEWAY>_BASE_URL. Running it again gives the same file and buys nothing.
    """
    request = read_request(request_file)
    sessions = [Session(_account(gateway), Store(url=str(output))) for gateway in gateways]
    pool = Pool(sessions, tell=lambda sentence: echo(sentence, err=True)) if len(sessions) > 1 else None
    asked: list[str] = []

    async def submit(session: Session, prepared: Prepared, policy: SubmitPolicy | None = None) -> Submitted:
        asked.append(prepared.digest)
        return await session.submit(prepared, policy=policy)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("submit", total=100, said="")

        async def on_poll(job: Job, state: JobSnapshot, elapsed_s: float) -> None:
            estimate = min(elapsed_s / find_route(job.gateway, job.capability, job.model).typical_s, 0.95)
            share = estimate if state.progress is None else state.progress
            said = f"{cell(state.provider_status or state.status.value)}{'' if state.progress is not None else ' (estimate)'}"
            progress.update(bar, completed=100 * share, said=said)

        try:
            if pool is not None:
                job = (await pool.submit(await pool.prepare(request, take=take), submit)).job
            else:
                job = (await submit(sessions[0], await sessions[0].prepare(request, take=take))).job
            session = sessions[0] if pool is None else pool.of(job)
            progress.update(bar, description=cell(f"{job.model} {job.task_id}"))
            result = await session.poll(job, deadline_s=deadline_s, on_poll=on_poll)
            progress.update(bar, completed=100, said="downloading")
            asset = (await session.store_outputs(result)).asset
            # The bar stays on the terminal, and is the last that is said there.
            progress.update(bar, said="kept")
        except asyncio.CancelledError:
            for digest in reversed(asked):
                await _tell_what_is_bought(sessions[0], digest)
            raise
    if as_json:
        print_json(asset)
        return
    for one in (asset, *asset.siblings):
        echo(one.uri.removeprefix("file://"))


def _account(gateway: str) -> Account:
    """Who pays, by the environment."""
    from prefect_happyhorse.blocks import GatewayCredentials

    try:
        return GatewayCredentials.from_environment(gateway).to_account()
    except ValidationError as error:
        fail(f"The environment's credentials are wrong. Nothing was sent.\n{listed(error)}", REFUSED)
    except (AuthenticationFailed, ValueError, OSError) as error:
        fail(f"The environment's credentials cannot be used. Nothing was sent.\n  - {error}", REFUSED)


async def _tell_what_is_bought(session: Session, digest: str) -> None:
    """End a command that is interrupted, unless nothing is bought for its request."""
    entry = await session.journal.latest(digest)
    if entry is None or not entry.is_open:
        return
    bought = (
        "a submit that may have been accepted" if entry.job is None else f"job {entry.job.task_id} of {entry.gateway}, which is paid for"
    )
    fail(f"Interrupted while waiting for {bought}. happyhorse jobs --store {shlex.quote(session.store.url)} show {digest[:12]}", SPENT)
