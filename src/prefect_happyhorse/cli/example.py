"""A request to copy: what a route must be given, and nothing else."""

from __future__ import annotations

from typing import Any

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.requests import REQUEST_CLASSES

__all__ = ["example_request"]

_PROMPT = "A white horse runs along the beach at dawn."
_VALUES: dict[str, Any] = {"prompt": _PROMPT, "duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}
_MEDIA = {"video": "mp4", "clip": "mp4", "reference_videos": "mp4", "audio": "mp3", "voice": "mp3"}
_MANY = ("references", "reference_videos")


def example_request(route: Route) -> dict[str, Any]:
    """The fields of a request that a route takes.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> example_request(find_route("happyhorse", "image_to_video", "happyhorse-1.0-i2v"))["image"]
        'https://example.com/image.png'
    """
    fields = REQUEST_CLASSES[route.capability].model_fields
    required = {*route.required_fields, *(name for name, field in fields.items() if field.is_required())}
    if route.capability.startswith(("reference_to", "multimodal")):
        required.add("references")
    example: dict[str, Any] = {"capability": route.capability, "model": route.model, "prompt": _PROMPT}
    for name in sorted(required - set(example)):
        address = f"https://example.com/{name.removesuffix('s')}.{_MEDIA.get(name, 'png')}"
        example[name] = _VALUES.get(name, [address] if name in _MANY else address)
    return example
