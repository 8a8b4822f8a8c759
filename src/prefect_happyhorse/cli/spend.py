"""`happyhorse spend`: what was spent, by what jobs are or are called."""

from __future__ import annotations

import click
from rich.table import Table

from prefect_happyhorse.cli.jobs import STORE_OPTIONS, find_journal
from prefect_happyhorse.cli.output import asynchronous, cell, console, echo, json_option, print_json
from prefect_happyhorse.engine.journal.index import contents
from prefect_happyhorse.engine.journal.spend import FACTS
from prefect_happyhorse.engine.journal.spend import spend as summed

__all__ = ["spend"]


@click.command(params=[*STORE_OPTIONS])
@click.option(
    "--by", default="model", show_default=True, metavar="NAMES", help=f"Some of {', '.join(FACTS)} and of your labels, with commas."
)
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
@asynchronous
async def spend(store: str, *, block: str | None, by: str, as_json: bool) -> None:
    """Sum up what the jobs of a journal should cost, and what they cost by the seconds that their providers counted."""
    names = list(dict.fromkeys(filter(None, (name.strip() for name in by.split(",")))))
    if not names:
        raise click.UsageError("--by needs a name, such as model or project.")
    found = await contents(await find_journal(store, block))
    for unreadable in found.unreadable:
        echo(str(unreadable.error), err=True)
    known = set(FACTS).union(*(dict(line.labels) for line in found.lines))
    for name in names:
        if name not in known and found.lines:
            echo(f"No job has the label {name!r}. There are {', '.join(sorted(known))}.", err=True)
    table = Table(*map(cell, names), "jobs", "estimated", "billed", "difference", "with warnings")
    for one in summed(found.lines, names):
        facts = {"jobs": one.jobs, "estimated": one.estimated, "billed": one.billed, "difference": one.difference, "warned": one.warned}
        if as_json:
            print_json(one.group | facts)
        table.add_row(*(cell(one.group[name]) for name in names), *map(str, facts.values()))
    if not as_json:
        console().print(table)
        echo(
            "Billed is by the seconds that the provider counted; what is of unknown price, or not counted in seconds, is not in it.",
            err=True,
        )
