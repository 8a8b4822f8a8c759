"""Media for a request that is only tried: what is sent as a file has to be there, unlike what lies at an example's address."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media, replace_media
from prefect_happyhorse.engine.inputs.preflight import limit_of
from prefect_happyhorse.sandbox.media.render import MediaSpec, RenderCache

__all__ = ["with_samples"]

_SIDE_PX = 512
_DURATION_S = 3.0


async def with_samples(request: GenerationRequest, route: Route, folder: Path) -> GenerationRequest:
    """A request whose media that are sent as files are plain ones, made in a folder within the route's limits."""
    renders = RenderCache()
    try:
        made: dict[tuple[str, int | None], str] = {}
        for name, position, _ in iter_media(request):
            if name in route.file_fields and (spec := _spec(route, name)) is not None:
                path = folder / f"{name}-{position}{spec.suffix}"
                shutil.copyfile(await renders.render(spec), path)
                made[name, position] = str(path)
        return replace_media(request, made)
    finally:
        await renders.close()


def _spec(route: Route, field: str) -> MediaSpec | None:
    """A medium that the route takes; None where none of its formats is made here."""
    limit = limit_of(route, field)
    kinds: dict[str, tuple[Literal["image", "video"], Literal["png", "jpeg", "webp", "mp4"]]] = {
        "png": ("image", "png"),
        "jpeg": ("image", "jpeg"),
        "webp": ("image", "webp"),
        "mp4": ("video", "mp4"),
    }
    found = next((kinds[form] for form in (limit.formats if limit else ()) if form in kinds), None)
    if limit is None or found is None:
        return None
    side = max(_SIDE_PX, limit.min_side_px or 0, limit.min_short_side_px or 0)
    duration_s = 0.0 if found[0] == "image" else max(_DURATION_S, limit.duration_s[0] if limit.duration_s else 0.0)
    return MediaSpec(kind=found[0], format=found[1], width=side, height=side, duration_s=duration_s, fps=12, quality=90)
