"""A gateway that takes files, gives results to the key alone, and deletes what it is to cancel: as data, in a dialect that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect_happyhorse.catalog import loader, register
from prefect_happyhorse.gateways import get_gateway

__all__ = ["VAULT", "registered"]

VAULT = """
[gateway]
gateway = "vault"
title = "Vault"
dialect = "newapi"
source = "Its document"
dated = 2026-11-20
auth = "X-Vault-Key: <key>"
content = "GET /videos/{task_id}/content"
cancel = "DELETE /videos/{task_id}"
typical_s = { image = 1.0, video = 2.0 }
codes = { task_not_exist = "not_found" }

[limits.frame]
role = "image"
formats = ["png", "jpeg"]
max_bytes = 200000
min_side_px = 300

[shapes.text]
submit = "POST /videos"
poll = "GET /videos/{task_id}"
encoding = "multipart"
fields = [
    { to = "model", from = "model", required = true },
    { to = "prompt", from = "prompt", required = true },
]

[shapes.frame]
submit = "POST /videos"
poll = "GET /videos/{task_id}"
encoding = "multipart"
fields = [
    { to = "model", from = "model", required = true },
    { to = "prompt", from = "prompt", required = true },
    { to = "frame", from = "image", type = "file", required = true },
]

[[route]]
capability = "text_to_video"
model = "coin"
title = "Coin"
shape = "text"
source = "Chapter 1"

[[route]]
capability = "image_to_video"
model = "coin"
title = "Coin"
shape = "frame"
limits = ["frame"]
source = "Chapter 2"

[[route]]
capability = "image_to_video"
model = "medal"
title = "Medal"
shape = "frame"
limits = ["frame"]
source = "Chapter 3"
"""


@contextmanager
def registered(text: str = VAULT) -> Iterator[None]:
    """Let the gateway be there for a while."""
    name = register(text).gateway
    get_gateway.cache_clear()
    try:
        yield
    finally:
        del loader._TEXTS[name]
        loader._LOADED.pop(name, None)
        get_gateway.cache_clear()
