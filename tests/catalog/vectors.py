"""The facts' own requests, with some of their fields changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect_happyhorse.catalog import find_problems, find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.locations import STORE_SCHEMES
from prefect_happyhorse.domain.requests import GenerationRequest, parse_request

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text(encoding="utf-8"))
SCHEMES = ", ".join(STORE_SCHEMES)
ASSET = MediaAsset(kind="image", uri="file:///horse.png", media_type="image/png", bytes=3, sha256="00")


def vector(gateway: str, capability: str, model: str, **changes: Any) -> GenerationRequest:
    """The facts' own request of a route, with some of its fields changed; a field that is changed to None is left out."""
    found = next(v for v in VECTORS if (v["gateway"], v["capability"], v["model"]) == (gateway, capability, model))
    return parse_request({name: value for name, value in {**found["request"], **changes}.items() if value is not None})


def problems(gateway: str, capability: str, model: str, **changes: Any) -> tuple[str, ...]:
    return find_problems(vector(gateway, capability, model, **changes), find_route(gateway, capability, model))


def ttapi(**changes: Any) -> tuple[str, ...]:
    return problems("ttapi", "reference_to_video", "happyhorse-1.1-r2v", **changes)


def addresses(number: int) -> list[str]:
    return [f"https://example.com/{position}.png" for position in range(number)]
