"""The task that stores what a job made."""

from __future__ import annotations

from prefect_happyhorse.artifacts.cards import show_asset
from prefect_happyhorse.artifacts.run import link_to
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import JobResult
from prefect_happyhorse.runtime.events import emit
from prefect_happyhorse.runtime.lineage import record_lineage
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, run_name, session_of

__all__ = ["download"]


@retried_task(name="download", task_run_name=run_name("download", "result"))
async def download(result: JobResult, credentials: Credentials, store: StoreRef = None) -> MediaAsset:
    """Keep a job's outputs, once, and show them in the Prefect UI.

    Args:
        result: The finished job.
        credentials: Who paid, for when the provider's address has to be asked for again. The key never goes to a download host.
        store: Where the outputs are kept.

    Returns:
        The first output; further ones are its `siblings`.

    Raises:
        DownloadFailed: When the output could not be fetched or kept whole.
        JobExpired: When the provider no longer keeps it.

    Example:
        ```python
        asset = await download(result, "happyhorse")
        ```
    """
    session = await session_of(credentials, store, result.job)
    stored = await session.store_outputs(result)
    for asset, thumbnail in stored.with_thumbnails():
        run_logger().info("%s kept at %s (%d bytes)", asset.kind, asset.uri, asset.bytes)
        for warning in asset.warnings:
            run_logger().warning("%s: %s", asset.uri, warning)
        await show_asset(asset, thumbnail=thumbnail, store=session.store)
        record_lineage(asset, stored.inputs)
    emit("kept", result.job, url=await link_to(stored.asset, session.store))
    if stored.failure is not None:
        raise stored.failure
    return stored.asset
