"""What was made, written as a data set: Parquet, JSON lines, or tar files as WebDataset reads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, get_args

from anyio import CancelScope, to_thread
from pydantic import Field

from prefect_happyhorse.datasets.samples import Sample, samples_of
from prefect_happyhorse.datasets.sink import Target
from prefect_happyhorse.datasets.writers import JsonLines, Parquet, WebDataset, Writer
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, Unreadable
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["SHARD_BYTES", "Export", "ExportFormat", "export", "journal_entries"]

ExportFormat = Literal["parquet", "jsonl", "webdataset"]

SHARD_BYTES = 1024**3
"""How long a shard of a WebDataset may become."""

_ENDINGS: Mapping[str, ExportFormat] = {"": "parquet", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "webdataset"}
_ROWS_AT_ONCE = 1024
_CHARS_AT_ONCE = 16 * 1024 * 1024
_ENTRIES_AT_ONCE = 256

_Entry = JournalEntry | Unreadable


class Export(Value):
    """A data set that was written."""

    format: ExportFormat
    files: tuple[str, ...] = Field(description="The URLs of its files, in order.")
    rows: int = Field(description="How many rows it has, one for each file that was made.")
    without_file: int = Field(description="How many jobs have none, since they are open or failed.")
    left_out: int = Field(default=0, description="How many files or journal entries had to be left out.")
    problems: tuple[str, ...] = Field(default=(), description="Why, for the first hundred of them.")


async def journal_entries(journal: Journal, digests: Collection[str] | None = None) -> AsyncGenerator[_Entry, None]:
    """All that stands in a journal, or what does of some digests: by digest, some entries at a time."""
    chosen = None if digests is None else frozenset(digests)
    revisions = sorted(one for one in (await journal.revisions()).items() if chosen is None or one[0] in chosen)
    for start in range(0, len(revisions), _ENTRIES_AT_ONCE):
        found = [one async for one in journal.read_all(dict(revisions[start : start + _ENTRIES_AT_ONCE]))]
        for one in sorted(found, key=lambda one: one.digest if isinstance(one, JournalEntry) else ""):
            yield one


async def export(
    entries: AsyncIterable[_Entry] | Iterable[_Entry],
    store: Store,
    target: str,
    *,
    format: ExportFormat | None = None,
    ids: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> Export:
    """Write what was made as a data set, in constant memory; the whole of it can be read back as a manifest by its column `request`.

    Args:
        entries: Journal entries, such as `journal_entries` gives them; one without a file is counted and makes no row.
        store: Where the files lie.
        target: A path or an fsspec URL. A file appears there once it is whole.
        format: Parquet and JSON lines hold the rows; WebDataset holds the files too, in shards: `shots-000000.tar` for `"shots.tar"`. By
            default the ending says so: `.parquet` or none, `.jsonl`, `.ndjson` or `.tar`.
        ids: For digests the row's own id; without one the digest itself. Further files of a job have `-2`, `-3` and so on behind it.
        shard_bytes: How long a shard may become.
        overwrite: Whether files of that name are replaced.

    Returns:
        What was written, and what had to be left out, since it is not there any more or cannot be read.

    Raises:
        ValueError: When two files would have the same id, or neither `format` nor the ending says how to write.
        ImportError: When the extra `data` is needed and not installed.
        OSError: When the target is there already, or a file cannot be read or written, or is not the one that was made.

    Example:
        ```python
        await export(journal_entries(journal), store, "s3://bucket/shots.parquet", ids={digest: "horse-1"})
        ```
    """
    place = await to_thread.run_sync(partial(Target, target, store, overwrite=overwrite))
    ending = PurePosixPath(place.path).suffix
    form = format or _ENDINGS.get(ending.lower())
    if form is None:
        known = ", ".join(filter(None, _ENDINGS))
        raise ValueError(
            f"target must end with one of {known} (got {ending!r}), or format must be one of {', '.join(get_args(ExportFormat))}"
        )
    writer = _writer(form, place, store, shard_bytes)
    at_once = 1 if form == "webdataset" else _ROWS_AT_ONCE
    without_file = 0
    samples: list[Sample] = []
    chars = 0
    try:
        await to_thread.run_sync(writer.open)
        async for entry in _each(entries):
            if isinstance(entry, Unreadable):
                writer.leave_out(str(entry.error))
                continue
            # A lease that was released means that nothing was bought.
            without_file += entry.asset is None and entry.state != "released"
            for sample in samples_of(entry, ids or {}):
                samples.append(sample)
                # A request may hold a picture in its own text.
                chars += len(sample.columns["request"])
            if len(samples) >= at_once or chars >= _CHARS_AT_ONCE:
                await to_thread.run_sync(writer.write, samples)
                samples, chars = [], 0
        await to_thread.run_sync(writer.write, samples)
        await to_thread.run_sync(writer.finish)
    except BaseException as error:
        with CancelScope(shield=True), suppress(Exception):
            await to_thread.run_sync(writer.abandon, error)
        raise
    return Export(
        format=form,
        files=tuple(writer.files),
        rows=writer.rows,
        without_file=without_file,
        left_out=writer.left_out,
        problems=tuple(writer.problems),
    )


def _writer(form: ExportFormat, target: Target, store: Store, shard_bytes: int) -> Writer:
    if form == "webdataset":
        return WebDataset(target, store, shard_bytes)
    return Parquet(target) if form == "parquet" else JsonLines(target)


async def _each(entries: AsyncIterable[_Entry] | Iterable[_Entry]) -> AsyncGenerator[_Entry, None]:
    if isinstance(entries, AsyncIterable):
        async for entry in entries:
            yield entry
    else:
        for entry in entries:
            yield entry
