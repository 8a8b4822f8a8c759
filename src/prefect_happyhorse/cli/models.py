"""`happyhorse models`: which gateway offers which capability of which model."""

from __future__ import annotations

import click

from prefect_happyhorse.catalog import GATEWAYS, routes
from prefect_happyhorse.cli.docs import costly_defaults, gateways_page, routes_table
from prefect_happyhorse.cli.output import console, fail
from prefect_happyhorse.domain.requests import REQUEST_CLASSES

__all__ = ["models"]


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell suggests: the models of the gateway that is named before, or of all."""
    del parameter
    return sorted({route.model for route in routes(context.params.get("gateway")) if route.model.startswith(incomplete)})


@click.command()
@click.option("--gateway", type=click.Choice(GATEWAYS), help="Only this gateway.")
@click.option("--capability", type=click.Choice(tuple(REQUEST_CLASSES)), metavar="NAME", help="Only this, for example reference_to_video.")
@click.option("--model", shell_complete=_names, help="Only models whose name contains this.")
@click.option("--json", "shape", flag_value="json", help="One JSON document a line, with every field and limit.")
@click.option("--markdown", "shape", flag_value="markdown", help="A markdown table, as it stands in the README.")
@click.option("--page", "shape", flag_value="page", help="The page docs/gateways.md.")
def models(gateway: str | None, capability: str | None, model: str | None, shape: str | None) -> None:
    """List the routes: which gateway offers which capability of which model."""
    found = [
        route
        for route in routes(gateway)
        if (capability is None or route.capability == capability) and (model is None or model.lower() in route.model.lower())
    ]
    if not found:
        fail("No route fits. `happyhorse models` without filters lists all.", 1)
    if shape == "json":
        for route in found:
            click.echo(route.model_dump_json(by_alias=True, exclude_defaults=True))
    elif shape == "markdown":
        click.echo(routes_table(found))
    elif shape == "page":
        click.echo(gateways_page(), nl=False)
    else:
        from rich.table import Table

        table = Table("gateway", "capability", "model", "takes", "options", "if not said", title=f"{len(found)} routes")
        for route in found:
            takes = (f"{name}*" if name in route.required_fields else name for name in sorted(route.request_fields - {"model"}))
            options = ", ".join(sorted(route.options))
            table.add_row(route.gateway, route.capability, route.model, ", ".join(takes), options, costly_defaults(route))
        console().print(table)
