"""One film out of several stored videos, stored beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from anyio import to_thread

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.media.concat import ConcatFailed, concat_files
from prefect_happyhorse.engine.media.probe import can_measure, probe
from prefect_happyhorse.engine.media.source import MediaUnavailable, local_file
from prefect_happyhorse.engine.media.thumbnail import thumbnail, thumbnail_path
from prefect_happyhorse.engine.storage.local import hash_file
from prefect_happyhorse.engine.storage.paths import safe
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["check_can_concat", "concat"]


def check_can_concat() -> None:
    """Say what is missing before anything is paid for that is to be concatenated."""
    if not (can_measure("video") and can_measure("image")):
        raise ImportError("Concatenating videos needs more: pip install 'prefect-happyhorse[media]'. Nothing was sent.")


async def concat(videos: Sequence[MediaAsset], store: Store, *, title: str) -> MediaAsset:
    """Concatenate stored videos into one film, in their order, and store it; the same videos give the same film, which is made once."""
    check_can_concat()
    parts_digest = hashlib.sha256("\n".join(video.sha256 for video in videos).encode()).hexdigest()
    path = f"films/{safe(title)}-{parts_digest[:16]}.mp4"
    if (stored := await _stored(path, store)) is not None:
        return stored
    folder = Path(await to_thread.run_sync(partial(tempfile.mkdtemp, dir=store.scratch_dir())))
    try:
        film = folder / "film.mp4"
        async with AsyncExitStack() as sources:
            files = [await _local(position, video, store, sources) for position, video in enumerate(videos)]
            reencoded = await to_thread.run_sync(concat_files, files, film)
        asset, small = await _put(film, path, store)
        if small is not None:
            await store.write(thumbnail_path(asset.sha256), small)
        parts = [{"uri": video.uri, "sha256": video.sha256, "task_id": video.job and video.job.task_id} for video in videos]
        beside = asset.model_dump(mode="json", exclude={"siblings"}, exclude_none=True) | {"made_of": parts, "reencoded": reencoded}
        await store.write(f"{path}.json", (json.dumps(beside, indent=2, ensure_ascii=False) + "\n").encode())
        return asset
    finally:
        await to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


async def _local(position: int, video: MediaAsset, store: Store, sources: AsyncExitStack) -> Path:
    try:
        return await sources.enter_async_context(local_file(video.uri, store=store))
    except MediaUnavailable as error:
        raise ConcatFailed(position, f"{video.uri}: {error}") from error


async def _put(film: Path, path: str, store: Store) -> tuple[MediaAsset, bytes | None]:
    """Store a film. One of the same videos that was stored first stays, since another machine's encoder gives other bytes."""
    asset, small = await to_thread.run_sync(_describe, film, store.uri(path))
    try:
        await store.keep(film, path)
    except FileExistsError:
        async with local_file(store.uri(path), store=store) as first:
            return await to_thread.run_sync(_describe, first, store.uri(path))
    return asset, small


async def _stored(path: str, store: Store) -> MediaAsset | None:
    try:
        beside = json.loads(await store.read(f"{path}.json"))
        asset = MediaAsset.model_validate({name: value for name, value in beside.items() if name in MediaAsset.model_fields})
        return asset if await store.size(path) == asset.bytes else None
    except FileNotFoundError:
        return None


def _describe(film: Path, uri: str) -> tuple[MediaAsset, bytes | None]:
    info = probe(film)
    asset = MediaAsset(
        kind="video",
        uri=uri,
        media_type=info.media_type,
        bytes=info.bytes,
        sha256=hash_file(film),
        width=info.width,
        height=info.height,
        duration_s=info.duration_s,
        fps=info.fps,
    )
    return asset, thumbnail(film, "video") if current().thumbnails else None
