"""Prefect assets: each kept file is one, made from the files that its request held, so that a server which draws lineage can draw ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import httpx
from prefect.assets import Asset, AssetProperties
from prefect.assets.core import MAX_ASSET_DESCRIPTION_LENGTH
from prefect.client.orchestration import get_client
from prefect.context import AssetContext
from prefect.exceptions import ObjectNotFound

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.runtime.cancellation import flow_run_id

__all__ = ["asset_of", "is_recorded", "record_lineage"]

_MOST_CHARS = 512
# https://docs.prefect.io/v3/concepts/assets: what a key may not hold.
_FORBIDDEN = re.compile(r"[\s?#&%\[\]{}]")

_log = logging.getLogger(__name__)
_ENDED: dict[str, datetime] = {}
"""When flow runs ended that ended well, which they do once."""


def asset_of(uri: str, *, name: str | None = None, description: str | None = None) -> Asset | None:
    """The Prefect asset of a file, or None where its address cannot be the key of one.

    Example:
        >>> asset_of("s3://studio/outputs/horse.png").key
        's3://studio/outputs/horse.png'
        >>> asset_of("/srv/horse.png") is None
        True
    """
    key = uri.partition("?")[0]
    if "://" not in key or len(key) > _MOST_CHARS or _FORBIDDEN.search(key):
        return None
    if description is not None and len(description) > MAX_ASSET_DESCRIPTION_LENGTH:
        said = f"… ({len(description):,} characters)"
        description = description[: MAX_ASSET_DESCRIPTION_LENGTH - len(said)] + said
    return Asset(key=key, properties=AssetProperties(name=name, description=description))


async def is_recorded(flow_run: str | None, kept_at: datetime) -> bool:
    """Whether another flow run has recorded what was kept then: it was under way, and has ended well since."""
    if flow_run is None or flow_run == str(flow_run_id()) or AssetContext.get() is None:
        return False

    async def look() -> None:
        try:
            async with get_client() as client:
                run = await client.read_flow_run(UUID(flow_run))
        except (httpx.HTTPError, ObjectNotFound, OSError, RuntimeError, ValueError) as error:
            # Told twice is better than never.
            _log.debug("Flow run %s could not be read: %s", flow_run, error)
            return
        if run.state is not None and run.state.is_completed() and run.end_time is not None:
            _ENDED[flow_run] = run.end_time

    if flow_run not in _ENDED:
        await PROCESS.latest("ended", flow_run).get(look)
    return flow_run in _ENDED and kept_at <= _ENDED[flow_run]


def record_lineage(asset: MediaAsset, inputs: Iterable[str]) -> None:
    """Record that the current task run made an asset; Prefect sends it to its server when the run is completed."""
    context = AssetContext.get()
    if context is None:
        return
    job = asset.job
    name = asset.kind if job is None else f"{job.model} {job.task_id}"
    of_job = {} if job is None else {"gateway": job.gateway, "model": job.model, "task_id": job.task_id}
    try:
        made = asset_of(asset.uri, name=name, description=None if job is None else job.prompt)
        if made is None:
            _log.debug("%s cannot be the key of a Prefect asset.", asset.uri)
            return
        context.downstream_assets.add(made)
        context.direct_asset_dependencies.update(found for uri in inputs if (found := asset_of(uri)) is not None)
        context.materialized_by = "happyhorse"
        # Not `add_asset_metadata`, which looks through all assets of the run for each.
        context.materialization_metadata[made.key] = {"sha256": asset.sha256, "bytes": asset.bytes, **of_job}
    except ValueError as error:
        # What cannot be drawn is kept all the same.
        _log.warning("The lineage of %s cannot be recorded: %s", asset.uri, error)
