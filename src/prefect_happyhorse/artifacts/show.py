"""What a run shows in the Prefect UI: a link and a card per asset, a gallery per run, a table per batch, progress while a job runs."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from prefect_happyhorse.artifacts.markdown import Tile, card, grid
from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobSnapshot
from prefect_happyhorse.engine.jobs.results import stored_thumbnail
from prefect_happyhorse.engine.media.thumbnail import thumbnail
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Gallery", "Progress", "artifact_key", "show_asset", "show_gallery", "show_table"]

_THUMBNAIL_PX = 192
_GALLERY_BYTES = 700_000
_PROGRESS_EVERY_S = 4.0

# When very many jobs end at once, the rest of the run's calls must not stand behind all their cards at the server.
_CARDS_AT_ONCE = 4
_CARDS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _in_run() -> bool:
    # Outside a run Prefect warns that an artifact belongs to nothing.
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None


@contextmanager
def _never_fatal(what: str) -> Generator[None]:
    """Turn a failure to show something into a warning: what is shown is paid for, and kept whether the UI can show it or not."""
    try:
        yield
    # Prefect's client names no base of what it may raise, from httpx, pydantic and itself; no kind of it may fail a step that is paid for.
    except Exception as error:  # noqa: BLE001
        get_run_logger().warning("%s could not be shown: %s: %s", what, type(error).__name__, error)


def artifact_key(*words: str) -> str:
    """An artifact key of several words: lower-case letters, digits and dashes, as Prefect wants it.

    Args:
        words: The words.

    Example:
        >>> artifact_key("card", "happyhorse-1.1-r2v", "0F2F")
        'card-happyhorse-1-1-r2v-0f2f'
    """
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def _key(kind: str, asset: MediaAsset) -> str:
    return artifact_key(kind, asset.job.model if asset.job else asset.kind, asset.sha256[:10])


async def _link(asset: MediaAsset, store: Store) -> str:
    path = store.path_of(asset.uri)
    public = None if path is None else await store.public_url(path)
    return public or asset.uri


async def show_asset(asset: MediaAsset, *, poster: bytes | None, store: Store) -> None:
    """Make a link artifact and a card for an asset; outside a run nothing is made.

    Args:
        asset: The asset.
        poster: A small JPEG of it, where there is one.
        store: Where it is kept.
    """
    if not _in_run():
        return
    title = f"{asset.job.capability} {asset.job.model}" if asset.job else asset.kind
    with _never_fatal(f"The card of {asset.uri}"):
        link = await _link(asset, store)
        await _show_link_and_card(asset, poster, link, title)


async def _show_link_and_card(asset: MediaAsset, poster: bytes | None, link: str, title: str) -> None:
    turn = _CARDS.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_CARDS_AT_ONCE))
    async with turn, anyio.create_task_group() as both:
        both.start_soon(lambda: acreate_link_artifact(link=link, link_text=title, key=_key("link", asset), description=asset.uri))
        both.start_soon(
            lambda: acreate_markdown_artifact(
                markdown=card(asset, poster=poster, link=link),
                key=_key("card", asset),
                description=f"{title}, {asset.job.gateway}" if asset.job else title,
            )
        )


async def show_gallery(assets: Sequence[tuple[str, MediaAsset]], *, store: Store, title: str) -> None:
    """Make one markdown artifact that shows a run's assets in the order in which they were made; outside a run nothing is made.

    Args:
        assets: For each its step and the asset.
        store: Where they are kept.
        title: What the run made.
    """
    gallery = Gallery(store=store, title=title)
    for step, asset in assets:
        gallery.put(step, asset)
    await gallery.show()


async def show_table(rows: Sequence[Mapping[str, object]], *, key: str, description: str) -> None:
    """Make a table artifact; outside a run nothing is made.

    Args:
        rows: The rows, each with the same columns.
        key: The artifact key.
        description: What the table shows.
    """
    if not _in_run():
        return
    with _never_fatal(f"The table {key!r}"):
        await acreate_table_artifact(table=[dict(row) for row in rows], key=artifact_key(key), description=description)


class Gallery:
    """A markdown artifact that shows assets side by side, and can be filled while a run goes on; outside a run nothing is made.

    Args:
        store: Where the assets are kept.
        title: What the run makes.
        every_s: How many seconds pass at least between two updates while it fills.
    """

    def __init__(self, *, store: Store, title: str, every_s: float = 10.0) -> None:
        self._store = store
        self._title = title
        self._every_s = every_s
        self._assets: dict[str, tuple[int, MediaAsset]] = {}
        self._artifact: UUID | None = None
        self._shown_at = float("-inf")
        self._turn = anyio.Lock()

    def put(self, head: str, asset: MediaAsset, *, place: int | None = None) -> None:
        """Add an asset, to be shown at the next update.

        Args:
            head: What stands above it; one asset for each head.
            asset: The asset.
            place: Where it stands among the others; None for after those that were put before.
        """
        self._assets[head] = (len(self._assets) if place is None else place, asset)

    async def add(self, head: str, asset: MediaAsset, *, place: int | None = None) -> None:
        """Add an asset, and show the gallery anew if that was not just done.

        Args:
            head: See `put`.
            asset: The asset.
            place: See `put`.
        """
        self.put(head, asset, place=place)
        if time.monotonic() - self._shown_at >= self._every_s:
            await self.show()

    async def show(self) -> None:
        """Show all that was added so far."""
        if not (_in_run() and self._assets):
            return
        self._shown_at = time.monotonic()
        async with self._turn:
            with _never_fatal(f"The gallery {self._title!r}"):
                markdown = await self._markdown()
                if self._artifact is None:
                    key = artifact_key("gallery", self._title)
                    self._artifact = await acreate_markdown_artifact(markdown=markdown, key=key, description=self._title)
                else:
                    async with get_client() as client:
                        await client.update_artifact(self._artifact, ArtifactUpdate(data=markdown))

    async def _markdown(self) -> str:
        left = _GALLERY_BYTES
        tiles: list[Tile] = []
        without = 0
        for head, (_, asset) in sorted(self._assets.items(), key=lambda item: item[1][0]):
            whole = await stored_thumbnail(asset, self._store)
            small = None if whole is None else await anyio.to_thread.run_sync(_shrunk, whole)
            # Prefect's server drops what makes an event too large, so the last of very many stand there without their picture.
            if small is not None and len(small) > left:
                small = None
                without += 1
            left -= len(small or b"")
            tiles.append(Tile(head, asset, small, await _link(asset, self._store)))
        note = (
            f"\n\n{without} of {len(tiles)} stand here without their picture, for which there is no room; their cards have it."
            if without
            else ""
        )
        return f"## {self._title}\n\n{grid(tiles)}{note}"


def _shrunk(jpeg: bytes) -> bytes:
    # Where Pillow is missing, the whole thumbnail has to do.
    return thumbnail(jpeg, "image", size=_THUMBNAIL_PX, max_bytes=len(jpeg)) or jpeg


class _Allowance:
    """Lets so many updates a second through and drops the rest: a thousand jobs must not keep the server from its own work.

    Args:
        per_s: How many.
    """

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1.0 / per_s
        self._next = float("-inf")
        self._lock = threading.Lock()

    def takes(self) -> bool:
        with self._lock:
            now = time.monotonic()
            # What a quiet second left over may be used at once.
            if now < self._next - 1.0:
                return False
            self._next = max(self._next, now) + self._gap_s
            return True


_ALLOWANCE = _Allowance(per_s=2.0)


class Progress:
    """A progress artifact for a job: the provider's own figure, else elapsed over typical time, which is said to be an estimate.

    It is updated every few seconds at most, less often where very many jobs of the process want to.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._shown_at = float("-inf")
        self._typical_s = find_route(job.gateway, job.capability, job.model).typical_s
        self._artifact: UUID | None = None

    async def show(self, state: JobSnapshot, elapsed_s: float) -> None:
        """Show where the job stands; a job that ends at its first answer needs no progress.

        Args:
            state: What the gateway says.
            elapsed_s: Seconds since submit.
        """
        if not _in_run() or not self._is_due(state):
            return
        self._shown_at = time.monotonic()
        estimated = state.progress is None
        # An estimate never says that a job is done: only the gateway can.
        share = min(elapsed_s / self._typical_s, 0.95) if state.progress is None else state.progress
        percent = 100.0 if state.status.final else round(share * 100, 1)
        said = "estimated from the usual duration" if estimated else "as the gateway says"
        description = f"{self._job.model} {self._job.task_id}: {state.provider_status or state.status.value}, {said}"
        with _never_fatal(f"The progress of {self._job.task_id}"):
            if self._artifact is None:
                key = artifact_key("progress", self._job.digest[:10])
                self._artifact = await acreate_progress_artifact(progress=percent, key=key, description=description)
            else:
                await aupdate_progress_artifact(self._artifact, progress=percent, description=description)

    def _is_due(self, state: JobSnapshot) -> bool:
        if state.status.final:
            return self._artifact is not None
        return time.monotonic() - self._shown_at >= _PROGRESS_EVERY_S and _ALLOWANCE.takes()
