"""The link and the card of an asset."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

import anyio
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact

from prefect_happyhorse.artifacts.markdown import card, inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, link_to, never_fatal
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["show_asset"]

# When very many jobs end at once, the rest of the run's calls must not stand behind all their cards at the server.
_CARDS_AT_ONCE = 4
_CARDS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def show_asset(asset: MediaAsset, *, thumbnail: bytes | None, store: Store) -> None:
    """Make a link artifact and a card for an asset; outside a run nothing is made."""
    if not in_run():
        return
    name = asset.job.model if asset.job else asset.kind
    title = f"{asset.job.capability} {inline(name)}" if asset.job else name
    slots = _CARDS.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_CARDS_AT_ONCE))
    with never_fatal(f"The card of {asset.uri}"):
        link = await link_to(asset, store)
        markdown = card(asset, thumbnail=thumbnail, link=link)
        described = f"{title}, {asset.job.gateway}" if asset.job else title
        link_key, card_key = (artifact_key(kind, name, asset.sha256[:10]) for kind in ("link", "card"))
        async with slots, anyio.create_task_group() as both:
            both.start_soon(lambda: acreate_link_artifact(link=link, link_text=title, key=link_key, description=asset.uri))
            both.start_soon(lambda: acreate_markdown_artifact(markdown=markdown, key=card_key, description=described))
