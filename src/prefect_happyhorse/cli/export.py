"""`happyhorse export`: what was made, as a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast, get_args

import click

from prefect_happyhorse.cli.jobs import STORE_OPTIONS, find_journal
from prefect_happyhorse.cli.output import asynchronous, echo, fail, json_option, print_json
from prefect_happyhorse.datasets import ExportFormat, journal_entries
from prefect_happyhorse.datasets import export as write_export

__all__ = ["export"]


def _read_ids(context: click.Context, parameter: click.Parameter, path: Path | None) -> dict[str, str]:
    try:
        ids: object = {} if path is None else json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} cannot be read: {error}") from error
    if not isinstance(ids, dict) or not all(isinstance(one, str) for one in cast("dict[str, Any]", ids).values()):
        raise click.BadParameter(f"{path} must hold a JSON object of texts, for each digest the row's own id")
    return cast("dict[str, str]", ids)


@click.command(params=[*STORE_OPTIONS])
@click.argument("target")
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(ExportFormat)),
    help="By default what the ending says: .parquet or none, .jsonl, .ndjson or .tar.",
)
@click.option(
    "--ids",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=_read_ids,
    help="A JSON object of the rows' own ids by their digests; a row that is not in it is called by its digest.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@json_option()
@asynchronous
async def export(
    target: str, *, store: str, block: str | None, form: ExportFormat | None, ids: dict[str, str], overwrite: bool, as_json: bool
) -> None:
    """Write what was made to TARGET, a path or an fsspec URL: the rows as Parquet or JSON lines, or rows and files as WebDataset.

    A row tells of a file and holds the request that it was made of; `batch` reads it as a manifest.
    """
    journal = await find_journal(store, block)
    done = await write_export(journal_entries(journal), journal.store, target, format=form, ids=ids, overwrite=overwrite)
    for problem in done.problems:
        echo(problem, err=True)
    if as_json:
        print_json(done)
    else:
        for file in done.files:
            echo(file.removeprefix("file://"))
        echo(f"{done.rows} rows from {journal.store.url}; {done.without_file} jobs have no file.", err=True)
    if done.left_out:
        fail(f"{done.left_out} files or journal entries were left out.", 1)
