"""The facts that every route and body is held to: `tests/data/routes.json` and `tests/data/vectors.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
ROUTES: list[dict[str, Any]] = json.loads((DATA / "routes.json").read_text(encoding="utf-8"))
VECTORS: list[dict[str, Any]] = json.loads((DATA / "vectors.json").read_text(encoding="utf-8"))


def name_of(fact: dict[str, Any]) -> str:
    """A route's or vector's name: gateway, capability and model."""
    return f"{fact['gateway']}/{fact['capability']}/{fact['model']}"
