"""`happyhorse setup`: what the Prefect server should know besides flows and blocks."""

from __future__ import annotations

from collections.abc import Sequence

import click

from prefect_happyhorse.catalog import GATEWAYS, gateway_facts
from prefect_happyhorse.cli.output import Seconds, asynchronous, echo, json_option, print_json

__all__ = ["setup"]


@click.group()
def setup() -> None:
    """Make limits and automations on the Prefect server."""


@setup.command()
@click.option("--gateway", type=click.Choice(GATEWAYS), required=True, help="The gateway.")
@click.option("--account", help="The account's label.  [default: that of the block of the gateway's name, else of the environment]")
@click.option("--jobs", type=click.IntRange(min=1), help="How many of the account's jobs may be open at once, over all workers.")
@click.option(
    "--calls-per-s",
    type=Seconds(min=0, min_open=True),
    help="How many calls the account may make a second, over all workers. By default what the provider documents, if it does.",
)
@json_option()
@asynchronous
async def limits(gateway: str, account: str | None, jobs: int | None, calls_per_s: float | None, *, as_json: bool) -> None:
    """Limit an account's open jobs and calls over all workers. Runs find the limits within a minute."""
    from prefect_happyhorse.blocks import GatewayCredentials
    from prefect_happyhorse.cli.doctor.server import require_api
    from prefect_happyhorse.runtime.concurrency import save_limits

    await require_api()
    facts = gateway_facts(gateway)
    whose = facts.borrowed_note("polls_per_s") if calls_per_s is None else ""
    calls_per_s = calls_per_s or facts.polls_per_s
    if jobs is None and calls_per_s is None:
        raise click.UsageError(f"{gateway} documents no limit: say --jobs, --calls-per-s or both.")
    if account is None:
        account = (await GatewayCredentials.find(gateway)).account_label
    echo(f"For the account {account!r} of {gateway}; runs that pay by another need limits of their own: --account.", err=True)
    _tell("limits", await save_limits(gateway, account, jobs=jobs, calls_per_s=calls_per_s), as_json=as_json)
    if whose:
        click.echo(f"{calls_per_s:g} calls a second are {whose}.", err=True)


@setup.command()
@click.option("--notify", metavar="TYPE/NAME", help="A saved notification block that hears of what needs a person: slack-webhook/studio.")
@click.option("--results", is_flag=True, help="Tell --notify of every result too, with its link.")
@click.option(
    "--silence-s",
    type=Seconds(min=10),
    help="Set a flow run of any flow to Crashed when no heartbeat came for so long. By default 600, three of Prefect's heartbeats.",
)
@json_option()
@asynchronous
async def automations(notify: str | None, *, results: bool, silence_s: float | None, as_json: bool) -> None:
    """End runs whose worker is gone, pause a deployment when a submit is uncertain, and tell somebody what needs a person."""
    from prefect.client.orchestration import get_client

    from prefect_happyhorse.cli.doctor.server import require_api
    from prefect_happyhorse.runtime.automations import (
        SILENCE_S,
        notifications,
        result_automation,
        save,
        uncertain_automation,
        zombie_automation,
    )

    if results and notify is None:
        raise click.UsageError("--results goes with --notify.")
    await require_api()
    made = [uncertain_automation(), zombie_automation(silence_s or SILENCE_S)]
    if notify is not None:
        kind, _, block_name = notify.partition("/")
        async with get_client() as client:
            try:
                block = await client.read_block_document_by_name(block_name, kind)
            except Exception as error:
                raise ValueError(f"There is no block {notify!r}: {error}") from error
        made += [*notifications(block.id), *([result_automation(block.id)] if results else [])]
    _tell("automations", [await save(automation) for automation in made], as_json=as_json)


def _tell(kind: str, names: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json({kind: names})
    else:
        for name in names:
            click.echo(name)
