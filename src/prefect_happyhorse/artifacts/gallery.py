"""Assets side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from uuid import UUID

import anyio
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from prefect_happyhorse.artifacts.markdown import Tile, address, grid, inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, link_to, never_fatal
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.media.probe import in_decoder
from prefect_happyhorse.engine.media.thumbnail import smaller, thumbnail_path
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Gallery", "show_gallery"]

_THUMBNAIL_PX = 192
# As base64 that is 930 kB; the server drops an event above 1.5 MB.
_PAGE_BYTES = 700_000
_TILE_BYTES = 400
_AT_ONCE = 32
# No browser follows a link from a page of a server to a file of the machine.
_NOT_OPENED = "A browser opens no file:// link from here: copy its address, or see all of the store by `happyhorse gallery`."


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
        self._is_shown = in_run() and current().gallery
        self._waiting: dict[str, tuple[int, MediaAsset, bytes | None]] = {}
        self._page: dict[str, tuple[int, Tile]] = {}
        self._page_bytes = 0
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
        if self._is_shown:
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
                waiting = iter(sorted(self._waiting, key=lambda head: self._waiting[head][0]))
                while some := list(islice(waiting, _AT_ONCE)):
                    for head, picture in zip(some, await self._pictures(some), strict=True):
                        place, asset, _ = self._waiting[head]
                        await self._enter(head, place, asset, picture)
                        del self._waiting[head]
                await self._publish()

    async def _pictures(self, heads: Sequence[str]) -> list[bytes | None]:
        """The small pictures of some that wait, read and made smaller in one go."""
        some = [(jpeg, thumbnail_path(asset.sha256)) for _, asset, jpeg in map(self._waiting.__getitem__, heads)]
        stored = {path: jpeg async for path, jpeg in self._store.read_all(list({path for jpeg, path in some if jpeg is None}))}
        return await in_decoder(_shrunk, [jpeg or stored.get(path) for jpeg, path in some])

    async def _enter(self, head: str, place: int, asset: MediaAsset, picture: bytes | None) -> None:
        tile = Tile(head, asset, picture, await link_to(asset, self._store))
        self._page_bytes += _bytes(tile) - (_bytes(self._page.pop(head)[1]) if head in self._page else 0)
        # Prefect's server drops what makes an event too large.
        if self._page and self._page_bytes > _PAGE_BYTES:
            await self._publish()
            self._page, self._page_bytes = {}, _bytes(tile)
            self._artifact = None
            self._pages += 1
        self._page[head] = (place, tile)

    async def _publish(self) -> None:
        title = self._title if self._pages == 1 else f"{self._title}, page {self._pages}"
        tiles = [tile for _, tile in sorted(self._page.values(), key=lambda item: item[0])]
        markdown = f"## {inline(title)}\n\n{grid(tiles)}"
        if (url := current().gallery_url) is not None:
            markdown += f"\n\n[All jobs of this store, with videos that play]({address(url)})"
        if any(tile.link.startswith("file:") for tile in tiles):
            markdown += f"\n\n{_NOT_OPENED}"
        if self._artifact is None:
            self._artifact = await acreate_markdown_artifact(
                markdown=markdown, key=artifact_key("gallery", title), description=inline(title)
            )
        else:
            async with get_client() as client:
                await client.update_artifact(self._artifact, ArtifactUpdate(data=markdown))


def _bytes(tile: Tile) -> int:
    return _TILE_BYTES + len(tile.picture or b"")


def _shrunk(jpegs: Sequence[bytes | None]) -> list[bytes | None]:
    return [jpeg and smaller(jpeg, _THUMBNAIL_PX) for jpeg in jpegs]
