"""The facts that every route and body is held to, in `tests/data`: `routes.json`, `vectors.json` and `dashscope_vectors.json`.

The exceptions stand in `differences.toml`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(__file__).parents[1] / "data"
ROUTES: list[dict[str, Any]] = json.loads((DATA / "routes.json").read_text(encoding="utf-8"))
DIFFERENCES: dict[str, list[str]] = tomllib.loads((DATA / "differences.toml").read_text(encoding="utf-8"))
VECTORS: list[dict[str, Any]] = [
    vector for name in ("vectors", "dashscope_vectors") for vector in json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
]
"""One for each route of the resellers, and for the maker's own gateway one of each kind."""


def name_of(fact: dict[str, Any]) -> str:
    """A route's or vector's name: gateway, capability and model."""
    return f"{fact['gateway']}/{fact['capability']}/{fact['model']}"
