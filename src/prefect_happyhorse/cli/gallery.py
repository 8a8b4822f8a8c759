"""`happyhorse gallery`: the journal of a store as a page in which pictures move."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from prefect_happyhorse.cli.jobs import STORE_OPTIONS, find_journal
from prefect_happyhorse.cli.output import echo, errors, fail, json_option, print_json
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.engine.journal.journal import Journal

__all__ = ["gallery"]


@click.command(params=[*STORE_OPTIONS])
@click.option("--port", default=8810, show_default=True, type=click.IntRange(0, 65_535), help="The port to listen on; 0 takes a free one.")
@click.option("--open", "opened", is_flag=True, help="Open it in the browser.")
@click.option(
    "--export",
    "folder",
    metavar="FOLDER",
    help="Write it as plain files in place of serving it; FOLDER is empty or holds an earlier export.",
)
@click.option("--copy", is_flag=True, help="With --export: copy the files themselves too, in place of linking to them.")
@json_option()
def gallery(store: str, *, block: str | None, port: int, opened: bool, folder: str | None, copy: bool, as_json: bool) -> None:
    """Show what the journal of a store holds as a page: pictures, videos that play, costs, and what to do.

    It is served to this machine alone, and only reads.
    """
    if folder is None and copy:
        raise click.UsageError("--copy goes with --export.")
    if folder is not None and locate(folder) != "local":
        raise click.UsageError("--export takes a folder on this machine; copy it into a bucket with the bucket's own tool.")
    with errors():
        journal = asyncio.run(find_journal(store, block))
        if folder is None:
            _serve(journal, port, opened=opened, as_json=as_json)
        else:
            _export(journal, Path(folder), copy=copy, as_json=as_json)


def _serve(journal: Journal, port: int, *, opened: bool, as_json: bool) -> None:
    from prefect_happyhorse.gallery.server import serve

    def started(address: str) -> None:
        if as_json:
            print_json({"url": address})
        echo(f"Gallery of {journal.store.url}: {address}  (Ctrl-C ends it)", err=as_json)
        if opened:
            click.launch(address)

    serve(journal, port=port, started=started)


def _export(journal: Journal, folder: Path, *, copy: bool, as_json: bool) -> None:
    from prefect_happyhorse.gallery.export import export_gallery

    done = asyncio.run(export_gallery(journal, folder, copy=copy))
    for problem in done.problems:
        echo(problem, err=True)
    if as_json:
        print_json(done._asdict())
    else:
        echo(str(done.page))
    echo(f"{done.jobs} jobs from {journal.store.url}; {done.copied} files copied, {done.linked} linked.", err=True)
    if done.unlinked:
        echo(
            f"{done.unlinked} files are shown by their thumbnails alone: the store is no folder and has no public address; give --copy.",
            err=True,
        )
    if done.problems:
        fail(f"{len(done.problems)} files or journal entries were left out.", 1)
