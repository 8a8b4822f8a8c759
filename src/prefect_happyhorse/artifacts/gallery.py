"""Assets side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import anyio
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from prefect_happyhorse.artifacts.markdown import Tile, address, grid, inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, link_to, never_fatal
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.jobs.results import stored_thumbnail
from prefect_happyhorse.engine.media.probe import in_decoder
from prefect_happyhorse.engine.media.thumbnail import thumbnail
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Gallery", "show_gallery"]

_THUMBNAIL_PX = 192
# As base64 that is 930 kB; the server drops an event above 1.5 MB.
_PAGE_BYTES = 700_000
_TILE_BYTES = 400


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
    """Markdown artifacts that show assets side by side, and can be filled while a run goes on; outside a run nothing is made.

    What does not fit into one goes into the next: the first is called by the title, the others by the title and a number.

    Args:
        store: Where the assets are kept.
        title: What the run makes.
        every_s: How many seconds pass at least between two updates while it fills.
    """

    def __init__(self, *, store: Store, title: str, every_s: float = 10.0) -> None:
        self._store = store
        self._title = title
        self._every_s = every_s
        self._waiting: dict[str, tuple[int, MediaAsset, bytes | None]] = {}
        self._page: dict[str, tuple[int, Tile]] = {}
        self._pages = 1
        self._count = 0
        self._artifact: UUID | None = None
        self._shown_at = float("-inf")
        self._lock = anyio.Lock()

    def put(self, head: str, asset: MediaAsset, *, place: int | None = None, thumbnail: bytes | None = None) -> None:
        """Add an asset, to be shown at the next update.

        Args:
            head: What stands above it; one asset for each head.
            asset: The asset.
            place: Where it stands among the others of its page; None for after those that were put before.
            thumbnail: Its small JPEG; None for the one that stands in the store.
        """
        if in_run() and current().gallery:
            self._count += 1
            self._waiting[head] = (self._count if place is None else place, asset, thumbnail)

    async def add(self, head: str, asset: MediaAsset, *, place: int | None = None, thumbnail: bytes | None = None) -> None:
        """Add an asset, and update the gallery unless that was just done.

        Args:
            head: See `put`.
            asset: The asset.
            place: See `put`.
            thumbnail: See `put`.
        """
        self.put(head, asset, place=place, thumbnail=thumbnail)
        if time.monotonic() - self._shown_at >= self._every_s:
            await self.show()

    async def show(self) -> None:
        """Show all that was added so far."""
        if not self._waiting:
            return
        self._shown_at = time.monotonic()
        async with self._lock:
            with never_fatal(f"The gallery {self._title!r}"):
                for head, (place, asset, jpeg) in sorted(self._waiting.items(), key=lambda item: item[1][0]):
                    await self._enter(head, place, asset, jpeg)
                    del self._waiting[head]
                await self._publish()

    async def _enter(self, head: str, place: int, asset: MediaAsset, jpeg: bytes | None) -> None:
        whole = jpeg or await stored_thumbnail(asset, self._store)
        small = None if whole is None else await in_decoder(_shrunk, whole)
        tile = Tile(head, asset, small, await link_to(asset, self._store))
        others = [other for name, (_, other) in self._page.items() if name != head]
        # Prefect's server drops what makes an event too large.
        if others and sum(_bytes(other) for other in others) + _bytes(tile) > _PAGE_BYTES:
            await self._publish()
            self._page = {}
            self._artifact = None
            self._pages += 1
        self._page[head] = (place, tile)

    async def _publish(self) -> None:
        title = self._title if self._pages == 1 else f"{self._title}, page {self._pages}"
        tiles = [tile for _, tile in sorted(self._page.values(), key=lambda item: item[0])]
        markdown = f"## {inline(title)}\n\n{grid(tiles)}"
        if (url := current().gallery_url) is not None:
            markdown += f"\n\n[All jobs of this store, with videos that play]({address(url)})"
        if self._artifact is None:
            self._artifact = await acreate_markdown_artifact(
                markdown=markdown, key=artifact_key("gallery", title), description=inline(title)
            )
        else:
            async with get_client() as client:
                await client.update_artifact(self._artifact, ArtifactUpdate(data=markdown))


def _bytes(tile: Tile) -> int:
    return _TILE_BYTES + len(tile.picture or b"")


def _shrunk(jpeg: bytes) -> bytes:
    # Where Pillow is missing, the whole thumbnail has to do.
    return thumbnail(jpeg, "image", size=_THUMBNAIL_PX, max_bytes=len(jpeg)) or jpeg
