"""`happyhorse prices`: what each route costs, and which prices are old."""

from __future__ import annotations

from datetime import datetime

import click
from rich.table import Table

from prefect_happyhorse.catalog import GATEWAYS, gateway_facts, list_prices, routes
from prefect_happyhorse.catalog.cost import price_of
from prefect_happyhorse.cli.docs import prices_page
from prefect_happyhorse.cli.output import console, echo, errors, fail, json_option, print_json
from prefect_happyhorse.domain.prices import Price

__all__ = ["old_prices", "prices"]

_OLD_DAYS = 90


@click.group(invoke_without_command=True)
@click.option("--gateway", type=click.Choice(GATEWAYS), help="Only this gateway.")
@click.option("--region", help="One of the gateway's regions; by default that of its environment, else of its default address.")
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
@click.option("--page", is_flag=True, help="The page docs/prices.md, by the lists in the package alone.")
@click.pass_context
def prices(context: click.Context, gateway: str | None, region: str | None, as_json: bool, page: bool) -> None:
    """Show what each route costs and by whose list: yours (<GATEWAY>_PRICES), the gateway's, or that of the model's maker."""
    if context.invoked_subcommand is not None:
        return
    if page:
        click.echo(prices_page(), nl=False)
        return
    # With it comes Prefect, which takes a second or two.
    from prefect_happyhorse.blocks import GatewayCredentials

    if region is not None and (gateway is None or region not in gateway_facts(gateway).regions):
        known = "" if gateway is None else ", ".join(gateway_facts(gateway).regions) or "no regions"
        raise click.UsageError(f"--region goes with a --gateway that has it{f' ({gateway} has {known})' if known else ''}.")
    table = Table("gateway", "capability", "model", "price", "by", "of")
    without = 0
    found = routes(gateway)
    for route in found:
        with errors():
            block = GatewayCredentials.from_environment(route.gateway)
            rows = price_of(route, tuple(block.prices), region=region or block.region)
        without += not rows
        for row in rows:
            whose = (
                "you" if row in block.prices else "the gateway" if row.gateway or route.facts.is_maker else "the maker, not your contract"
            )
            if as_json:
                print_json(row.model_copy(update={"gateway": route.gateway, "capability": route.capability, "model": route.model}))
            resolution = f" at {row.resolution}" if row.resolution else ""
            table.add_row(route.gateway, route.capability, route.model, f"{row}{resolution}", whose, row.dated.isoformat())
    if not as_json:
        console().print(table)
    echo(f"{len(found) - without} of {len(found)} routes have a price; of the others none is known, which is not zero.", err=True)


@prices.command()
@json_option()
def check(*, as_json: bool) -> None:
    """Tell which rows were read more than 90 days ago, your own among them; a code of 1 says that there are some."""
    with errors():
        old, _ = old_prices()
    if as_json:
        print_json({"days": _OLD_DAYS, "old": old})
    for line in old:
        echo(line, err=as_json)
    if old:
        fail(f"{len(old)} prices are more than {_OLD_DAYS} days old.", 1)
    echo(f"No price is more than {_OLD_DAYS} days old.", err=as_json)


def old_prices() -> tuple[list[str], int]:
    """What is said of each row that is old, those of the user's own lists among them, and from how many days on a row is old."""
    from prefect_happyhorse.blocks import GatewayCredentials

    own = {name: GatewayCredentials.from_environment(name).prices for name in GATEWAYS}
    old = [f"{_what(row)}: {_days(row)} days" for row in list_prices() if _days(row) > _OLD_DAYS]
    old += [
        f"{_what(row)} in {name.upper()}_PRICES: {_days(row)} days" for name, rows in own.items() for row in rows if _days(row) > _OLD_DAYS
    ]
    return old, _OLD_DAYS


def _days(row: Price) -> int:
    return (datetime.now().astimezone().date() - row.dated).days


def _what(row: Price) -> str:
    facts = " ".join(fact for fact in (row.model, row.gateway, row.region, row.capability, row.resolution) if fact)
    return f"{row} for {facts}, {row.source}"
