"""The task that writes what was made as a data set."""

from __future__ import annotations

from collections.abc import Mapping

from prefect_happyhorse.datasets.export import SHARD_BYTES, Export, ExportFormat, export, journal_entries
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.resolve import StoreRef, store_of

__all__ = ["export_assets"]


# An export that fails leaves nothing behind, so that it can be tried again.
@retried_task(name="export-assets", task_run_name="export {target}")
async def export_assets(
    target: str,
    store: StoreRef = None,
    *,
    format: ExportFormat | None = None,
    digests: list[str] | None = None,
    ids: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> Export:
    """Write what was made as Parquet, JSON lines or WebDataset. Nothing is bought.

    Args:
        target: A path on the worker or an fsspec URL. A file appears there once it is whole.
        store: Where the files and the journal are kept.
        format: Parquet and JSON lines hold the rows, one for each file; WebDataset holds the files too, in shards: `shots-000000.tar` for
            `"shots.tar"`. By default the ending says so: `.parquet` or none, `.jsonl`, `.ndjson` or `.tar`.
        digests: The jobs that are wanted, by their request digests; by default all of the journal.
        ids: For digests the row's own id; without one the digest itself.
        shard_bytes: How long a shard may become.
        overwrite: Whether files of that name are replaced.

    Returns:
        What was written. What had to be left out stands in it, and in the run's log as an error.

    Raises:
        ValueError: When two files would have the same id, or neither `format` nor the ending says how to write.
        ImportError: When the extra `data` is needed and not installed.
        OSError: When the target is there already, or a file cannot be read or written, or is not the one that was made.

    Example:
        ```python
        await export_assets("s3://bucket/shots.parquet", ids={asset.job.digest: "horse-1"})
        ```
    """
    place = await store_of(store)
    entries = journal_entries(PROCESS.journal(place), digests)
    done = await export(entries, place, target, format=format, ids=ids, shard_bytes=shard_bytes, overwrite=overwrite)
    for problem in done.problems:
        run_logger().error("%s It is left out.", problem)
    run_logger().info("%d rows in %d files; %d jobs have no file.", done.rows, len(done.files), done.without_file)
    return done
