"""The task that makes one film of several videos."""

from __future__ import annotations

from prefect_happyhorse.artifacts.cards import show_asset
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.engine.jobs.results import stored_thumbnail
from prefect_happyhorse.engine.media import film as film_module
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.resolve import StoreRef, store_of

__all__ = ["concat"]


# The film's name says what it was made of, so that one which is there is found.
@retried_task(name="concat", task_run_name='concat "{title}"')
async def concat(videos: list[MediaAsset], store: StoreRef = None, *, title: str = "film") -> MediaAsset:
    """Join kept videos into one film, in their order, keep it beside them, and show it. Nothing is bought.

    Args:
        videos: The videos.
        store: Where they are kept, and the film goes.
        title: What the film is called.

    Returns:
        The film. Videos of one coding, size and sound are copied as they are; others are fitted into the size and frame rate of the first.

    Raises:
        ConcatFailed: When a video cannot be read.
        ImportError: When the extra `media` is not installed.

    Example:
        ```python
        film = await concat([first, second], title="The ride")
        ```
    """
    place = await store_of(store)
    film = await film_module.concat(videos, place, title=title)
    await show_asset(film, thumbnail=await stored_thumbnail(film, place), store=place)
    return film
