"""What all artifacts have in common: they belong to a run, have a key, and never fail what they show."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["artifact_key", "in_run", "link_to", "never_fatal"]


def in_run() -> bool:
    """Whether there is a run that an artifact can belong to."""
    # Outside a run Prefect warns that an artifact belongs to nothing.
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None


@contextmanager
def never_fatal(what: str) -> Generator[None]:
    """Turn a failure to show something into a warning: what is shown is paid for, and kept whether the UI can show it or not."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- Prefect's client names no base of what it raises; none may fail a step that is paid for
        get_run_logger().warning("%s could not be shown: %s: %s", what, type(error).__name__, error)


def artifact_key(*words: str) -> str:
    """An artifact key of several words: lower-case letters, digits and dashes, as Prefect wants it.

    Example:
        >>> artifact_key("card", "happyhorse-1.1-r2v", "0F2F")
        'card-happyhorse-1-1-r2v-0f2f'
    """
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


async def link_to(asset: MediaAsset, store: Store) -> str:
    """Where people can read an asset, else where it is stored."""
    path = store.path_of(asset.uri)
    public = None if path is None else await store.public_url(path)
    return public or asset.uri
