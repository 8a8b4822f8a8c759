"""The request digest: the name under which a job is bought once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from prefect_happyhorse.domain.requests import GenerationRequest, iter_media

__all__ = ["request_digest"]


def request_digest(
    request: GenerationRequest, *, gateway: str, account: str, take: int, fingerprints: Mapping[tuple[str, int | None], str]
) -> str:
    """The digest of a request: equal for equal requests on one account, whatever machine or process asks.

    Example:
        >>> from prefect_happyhorse.domain.requests import TextToImage
        >>> request = TextToImage(model="gpt-image-2", prompt="A horse")
        >>> request_digest(request, gateway="happyhorse", account="a", take=1, fingerprints={})[:8]
        'b8adebce'
    """
    fields = {name: value for name, value in request.model_dump(mode="json", exclude_none=True).items() if value not in ([], {})}
    for name, position, _ in iter_media(request):
        if position is None:
            fields[name] = fingerprints[name, None]
        else:
            fields[name][position] = fingerprints[name, position]
    canonical = {"version": 1, "gateway": gateway, "account": account, "take": take, "request": fields}
    text = json.dumps(canonical, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
