"""Assets side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import anyio
import anyio.to_thread
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from prefect_happyhorse.artifacts.markdown import Tile, grid, inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, link_to, never_fatal
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.engine.jobs.results import stored_thumbnail
from prefect_happyhorse.engine.media.thumbnail import thumbnail
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Gallery", "show_gallery"]

_THUMBNAIL_PX = 192
_GALLERY_BYTES = 700_000


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
        self._lock = anyio.Lock()

    def put(self, head: str, asset: MediaAsset, *, place: int | None = None) -> None:
        """Add an asset, to be shown at the next update.

        Args:
            head: What stands above it; one asset for each head.
            asset: The asset.
            place: Where it stands among the others; None for after those that were put before.
        """
        self._assets[head] = (len(self._assets) if place is None else place, asset)

    async def add(self, head: str, asset: MediaAsset, *, place: int | None = None) -> None:
        """Add an asset, and update the gallery unless that was just done.

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
        if not (in_run() and self._assets):
            return
        self._shown_at = time.monotonic()
        async with self._lock:
            with never_fatal(f"The gallery {self._title!r}"):
                markdown = await self._markdown()
                if self._artifact is None:
                    key = artifact_key("gallery", self._title)
                    self._artifact = await acreate_markdown_artifact(markdown=markdown, key=key, description=inline(self._title))
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
            tiles.append(Tile(head, asset, small, await link_to(asset, self._store)))
        parts = [f"## {inline(self._title)}", grid(tiles)]
        if without:
            parts.append(f"{without} of {len(tiles)} stand here without their picture, for which there is no room; their cards have it.")
        return "\n\n".join(parts)


def _shrunk(jpeg: bytes) -> bytes:
    # Where Pillow is missing, the whole thumbnail has to do.
    return thumbnail(jpeg, "image", size=_THUMBNAIL_PX, max_bytes=len(jpeg)) or jpeg
